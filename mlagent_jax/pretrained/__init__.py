"""Pretrained models: their files, and their conversion to Hugging Face directories."""
