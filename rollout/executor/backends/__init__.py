"""Sandbox backends: bubblewrap, Landlock, Ray."""
