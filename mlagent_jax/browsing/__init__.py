"""The runs below a folder: a list of them, and their figures in a browser."""
