"""Evaluation of agents on tasks: `mlagent evaluate`."""
