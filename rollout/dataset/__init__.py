"""What is done with recorded trajectories: chosen, measured, looked at, and handed to other programs."""
