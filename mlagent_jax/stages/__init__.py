"""The stages of a run that learn nothing themselves: collecting the expert's trajectories, evaluating policies."""
