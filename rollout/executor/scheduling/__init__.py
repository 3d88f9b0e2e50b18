"""Decide which script runs next, and on which machine."""
