"""Optimizers, train state and checkpoints, shared by fine-tuning and PPO."""
