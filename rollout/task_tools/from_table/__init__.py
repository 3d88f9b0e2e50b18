"""A task from a user's table."""
