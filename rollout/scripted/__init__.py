"""The scripted expert and coder, which stand in for language models."""
