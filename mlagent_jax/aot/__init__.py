"""Ahead of time: the steps of a run compiled for accelerators that are not there, and what they would cost."""
