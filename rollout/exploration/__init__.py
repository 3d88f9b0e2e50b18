"""Ideas for the expert: candidates, selection by distance, draws."""
