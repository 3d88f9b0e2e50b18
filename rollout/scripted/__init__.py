"""The scripted expert and coder, which need no language model."""
