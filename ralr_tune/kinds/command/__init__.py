"""The command kind: any program trains."""
