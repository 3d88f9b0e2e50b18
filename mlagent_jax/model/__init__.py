"""The transformer, its attention kernels, layouts and shardings, and loading and saving of Hugging Face directories."""
