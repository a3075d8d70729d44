"""What this machine has to give: memory, and a share of a GPU."""
