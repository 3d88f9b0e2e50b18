"""Select, augment, measure, view and exchange recorded trajectories."""
