"""The environment as a library: tasks in which any agent acts by text."""
