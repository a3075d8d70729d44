"""Kernels that fuse operators of torch on a CPU: batch normalisation, sum and ReLU in one pass."""
