"""Ahead-of-time compilation of a run's steps for TPU slices, without a TPU, and the cost of the steps."""
