"""Checks of a machine before the first run: devices, kernels, the policy server and the sandbox."""
