"""What each command does, without the terminal: `cli.py` parses and prints, these do the work and return facts."""
