"""The vLLM server, its client and weight updates."""
