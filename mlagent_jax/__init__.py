"""What learns from the rollouts: the policy, fine-tuning, step-wise PPO and the run that strings them together.

Nothing here imports torch, vLLM or transformers.
"""
