"""Resources of this machine: cores, memory, a share of a GPU, file locks."""
