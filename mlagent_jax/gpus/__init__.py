"""The GPUs of a run: which ones the trainer and its policy server use, and whether their memory suffices."""
