"""Exploration-enriched fine-tuning on the expert's trajectories."""
