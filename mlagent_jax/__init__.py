"""Training of ML agents in JAX: the policy, fine-tuning, step-wise PPO, and the stages of a run.

Nothing here imports torch, vLLM or transformers. `mlagent_jax.load_policy` loads an exported policy to compute logits;
JAX is imported with it, not with the package. `mlagent_jax.solve` lets an agent improve a script on a user's table, and
`mlagent_jax.make` opens the environment of a task for any agent.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlagent_jax.env.make import make
    from mlagent_jax.model.policy import load_policy
    from mlagent_jax.solving.run import solve

__all__ = ["load_policy", "make", "solve"]


_MODULES = {
    "load_policy": "mlagent_jax.model.policy",
    "make": "mlagent_jax.env.make",
    "solve": "mlagent_jax.solving.run",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
