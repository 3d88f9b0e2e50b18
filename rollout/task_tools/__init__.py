"""Tools for task authors: prepare tasks, create them from a table, make micro versions, and validate them."""
