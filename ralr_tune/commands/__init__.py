"""The work of each command, without the terminal: `cli.py` parses and prints; these modules return the results."""
