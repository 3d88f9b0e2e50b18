"""What is asked of the agent: tasks, states, prompts, the action grammar, metrics and rewards.

Pure descriptions and pure functions: nothing here starts a process, opens a socket or imports JAX.
"""
