"""Trains one configuration, epoch by epoch. Uses neither Optuna nor SQL."""
