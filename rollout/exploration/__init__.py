"""Ideas that steer the expert: the library, candidates, selection by distance, draws, and their page."""
