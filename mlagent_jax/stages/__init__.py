"""The stages of a run.

A stage is a class in a file of this folder that implements `mlagent_jax.stages.stage.Stage`; the file names its one
instance `STAGE`. To add one, write the file and add its name to `STAGE_NAMES`, the only list of stages.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlagent_jax.stages.stage import Stage

STAGE_NAMES = ("collect", "sft", "ppo", "evaluate", "export")  # in the order in which they run; also names of files


def load_stages() -> "tuple[Stage, ...]":
    """Import the stages, which takes seconds, and return them in order."""
    return tuple(import_module(f"{__name__}.{name}").STAGE for name in STAGE_NAMES)
