"""Reuse the results of deterministic scripts."""
