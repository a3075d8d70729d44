"""One trial from claim to `tell`: a study's spaces, samplers and pruners, search and confirm. Starts no process."""
