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
    """Import the stages, which takes seconds, check their declarations, and return them in order."""
    stages = tuple(import_module(f"{__name__}.{name}").STAGE for name in STAGE_NAMES)
    for index, (name, stage) in enumerate(zip(STAGE_NAMES, stages, strict=True)):
        assert stage.name == name, f"the stage of {name}.py is named {stage.name!r}, expected the name of the file"
        assert set(stage.after) <= set(STAGE_NAMES[:index]), f"{name} reads {stage.after}, expected earlier stages"
        assert stage.acts or not stage.leaves_trajectories, f"{name} leaves trajectories, so it has to act"
        assert "sft" in stage.after or not stage.samples, f"{name} samples, so it has to come after sft"
    return stages
