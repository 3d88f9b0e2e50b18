"""Sandbox backends: bubblewrap, Landlock, Ray, and the contract that all of them implement."""
