"""Ahead-of-time compilation of a run's steps for TPU slices, without a TPU, and what the steps would cost."""
