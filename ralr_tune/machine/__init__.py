"""What this machine gives: cores, memory, a share of a GPU, locks on files."""
