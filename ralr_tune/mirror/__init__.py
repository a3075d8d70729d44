"""Shows a study in TensorBoard, MLflow or W&B: reads the ledger, and never touches a trial."""
