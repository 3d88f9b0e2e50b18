"""Ahead-of-time compilation of a run's programs for GPUs and TPU slices, without them, and their cost."""
