"""The code that the bubblewrap and Landlock backends share: sandboxes that are processes on this machine."""
