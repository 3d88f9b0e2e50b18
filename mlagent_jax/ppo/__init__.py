"""Step-wise PPO: one action from states cut out of expert trajectories."""
