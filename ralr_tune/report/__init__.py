"""Draws and writes the facts: plotly figures, one HTML page, images, panels in optuna-dashboard, exports."""
