"""The transformer, its attention kernels, layouts and shardings, and Hugging Face directories in and out."""
