"""The simulated kind, which trains nothing."""
