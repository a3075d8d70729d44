"""The simulated kind: it trains nothing."""
