"""Sandboxes that are processes on this machine, which bubblewrap and Landlock share."""
