"""Create a task from a user's table."""
