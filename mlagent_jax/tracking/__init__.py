"""Metrics, progress bars and logs."""
