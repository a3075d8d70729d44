"""The function kind: a Python function trains."""
