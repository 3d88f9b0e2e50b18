"""The environment's effects: the policy server, workspaces, sandboxed scripts, trajectories. No JAX, no gradients."""
