"""Runs in tracking services: TensorBoard, Weights & Biases, MLflow and Trackio."""
