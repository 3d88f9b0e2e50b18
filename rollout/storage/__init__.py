"""Content-addressed blobs, journals and trajectory files."""
