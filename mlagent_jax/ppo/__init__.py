"""Step-wise and episode-wise PPO: batches, advantages, losses, the learner and the training loop."""
