"""Save and restore checkpoints of a training loop, which resumes from the newest whole one."""

import logging
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from mlagent_jax.multihost import distributed
from rollout.errors import CorruptRecord
from rollout.storage.digests import find_damage, has_digests, write_digests
from rollout.storage.system_errors import system_error
from tasks.quoting import shell_command

NUM_KEPT = 2  # the older one is for a newest one that is damaged

log = logging.getLogger(__name__)


class Checkpoints:
    """The newest two checkpoints in one folder, by step; orbax writes each atomically.

    The digests of a checkpoint's files are written last, and checked before it is used. All processes of a run open,
    save and restore together; process 0 checks.
    """

    def __init__(self, folder: Path, saved: Callable[[], None] = lambda: None) -> None:
        """Open the folder, and remove checkpoints that are damaged if an older one is whole.

        Args:
            folder: The directory of the checkpoints.
            saved: A function that process 0 calls after each checkpoint is written.

        Raises:
            CorruptRecord: If there are checkpoints and none is whole.
        """
        self._folder, self._saved = folder.absolute(), saved
        # Before orbax opens the folder: it takes damaged checkpoints for unfinished or newer ones.
        distributed.from_main(self._remove_damaged)
        options = ocp.CheckpointManagerOptions(max_to_keep=NUM_KEPT, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def save(self, step: int, state: PyTree, notes: Mapping[str, Any]) -> None:
        """Write the arrays of `state` and the JSON values of `notes`.

        Raises:
            OSError: If the files cannot be written, as on a full disk. Earlier checkpoints stay.
        """
        arrays = ocp.args.StandardSave(state)
        try:
            self._manager.save(step, args=ocp.args.Composite(state=arrays, notes=ocp.args.JsonSave(dict(notes))))
        except ValueError as error:
            raise system_error(error, self._folder) or error from None
        # The others wait, because collectives of devices would time out while process 0 reads the files again.
        distributed.from_main(partial(self._complete, step))

    def latest(self, template: PyTree) -> tuple[PyTree, dict[str, Any]] | None:
        """Return the newest checkpoint in the shapes and shardings of `template`, or None if there is none.

        Raises:
            CorruptRecord: If it cannot be read and has no digests, by which its damage would have been found.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
        restore = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), notes=ocp.args.JsonRestore())
        try:
            restored = self._manager.restore(step, args=restore)
        except Exception as error:  # orbax raises many types
            if has_digests(self._folder / str(step)):
                raise
            raise CorruptRecord(_none_whole(self._folder, self._folder / str(step))) from error
        return restored["state"], restored["notes"]

    def _complete(self, step: int) -> None:
        write_digests(self._folder / str(step))
        self._saved()

    def _remove_damaged(self) -> None:
        """Remove the checkpoints that are newer than the newest whole one.

        One without digests, which a kill during the save or an earlier version left, is used if no other is whole.
        """
        folders = {int(path.name): path for path in self._folder.glob("*") if path.name.isdecimal()}
        faults: dict[int, Path] = {}
        for step in sorted(folders, reverse=True):
            fault = find_damage(folders[step])
            if fault is None:
                break
            faults[step] = fault
        else:
            step = max((step for step in folders if not has_digests(folders[step])), default=None)
        if step is None:
            if faults:
                raise CorruptRecord(_none_whole(self._folder, faults[max(faults)]))
            return
        for damaged in sorted(found for found in faults if found > step):
            log.warning(
                "checkpoint %s is not whole (%s is damaged or missing) and was removed; the run goes on from the older "
                "one of step %d",
                *(folders[damaged], faults[damaged], step),
            )
            if folders[damaged].is_symlink() or not folders[damaged].is_dir():
                folders[damaged].unlink()
            else:
                shutil.rmtree(folders[damaged])

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._manager.close()


def _none_whole(folder: Path, damaged: Path) -> str:
    return (
        f"no checkpoint in {folder} is whole ({damaged} is damaged or missing); remove the folder with "
        f"`{shell_command('rm', '-r', folder)}` to train from the beginning"
    )
