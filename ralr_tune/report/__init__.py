"""Facts drawn and written: plotly figures, one HTML page, images, panels in optuna-dashboard, exports."""
