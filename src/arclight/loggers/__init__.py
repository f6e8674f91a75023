"""Loggers: metrics.csv, TensorBoard, W&B and MLflow; they resume under their id, and their failure never stops a run."""
