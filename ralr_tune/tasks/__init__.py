"""What is learned: the contract of a task (`base`), one module per kind, and where their data come from."""
