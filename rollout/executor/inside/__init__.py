"""Programs that run inside a sandbox, with the standard library and `rollout/runtime/syscalls.py` alone."""
