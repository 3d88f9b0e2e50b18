"""Tasks, states, prompts, the action grammar, metrics and rewards.

Pure data and pure functions: nothing here starts a process, opens a socket or imports JAX.
"""
