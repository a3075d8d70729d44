"""What torch's operators do one by one and a kernel of ours does in one, on a CPU: batch normalisation, sum, ReLU."""
