"""Qwen2.5 in Flax: the network, its layouts, its shardings, and Hugging Face directories in and out."""
