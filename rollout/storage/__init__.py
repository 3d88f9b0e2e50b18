"""Content-addressed blobs, directory manifests, journals, trajectory files and atomic writes."""
