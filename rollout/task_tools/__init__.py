"""Tools for task authors: prepare, create from a table, shrink, validate."""
