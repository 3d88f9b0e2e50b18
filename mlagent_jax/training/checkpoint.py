"""Save and restore checkpoints of a training loop, which resumes from the newest complete one."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree


class Checkpoints:
    """The checkpoints in one folder, by step; orbax writes each atomically and keeps only the newest."""

    def __init__(self, folder: Path, saved: Callable[[], None] = lambda: None) -> None:
        """Open the folder.

        Args:
            folder: The directory of the checkpoints.
            saved: A function that is called after each checkpoint is written.
        """
        self._saved = saved
        options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def save(self, step: int, state: PyTree, notes: Mapping[str, Any]) -> None:
        """Write the arrays of `state` and the JSON values of `notes`."""
        arrays = ocp.args.StandardSave(state)
        self._manager.save(step, args=ocp.args.Composite(state=arrays, notes=ocp.args.JsonSave(dict(notes))))
        self._saved()

    def latest(self, template: PyTree) -> tuple[PyTree, dict[str, Any]] | None:
        """Return the newest checkpoint in the shapes and shardings of `template`, or None if there is none."""
        step = self._manager.latest_step()
        if step is None:
            return None
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
        restore = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), notes=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=restore)
        return restored["state"], restored["notes"]

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._manager.close()
