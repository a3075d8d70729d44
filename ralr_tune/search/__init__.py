"""One trial from claim to tell: spaces, samplers and pruners of a study, search, and confirm. Knows no process."""
