"""Training one configuration, epoch by epoch. Knows neither Optuna nor SQL."""
