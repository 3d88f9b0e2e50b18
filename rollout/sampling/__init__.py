"""Episodes, rollouts, state pools, collection and evaluation."""
