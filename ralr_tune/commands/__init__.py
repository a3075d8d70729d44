"""The work of each command, without the terminal: `cli/` parses and prints; these modules return the results."""
