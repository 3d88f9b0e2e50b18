"""The policy server, which runs vLLM: its process, its client, and weight updates."""
