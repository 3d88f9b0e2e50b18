"""Save and restore checkpoints of a training loop, which resumes from the newest whole one."""

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from mlagent_jax.multihost import distributed, preemption
from mlagent_jax.training.finite import HOST, NotFinite, require_finite
from rollout.errors import CorruptRecord
from rollout.storage.digests import find_damage, has_digests, write_digests
from rollout.storage.system_errors import system_error
from tasks.quoting import shell_command

NUM_KEPT = 2  # the older one is for a newest one that is damaged
ACCELERATOR_GB = 96  # orbax's own choice
WRITING_SECONDS = 12 * 3600  # a slow disk is no failure

log = logging.getLogger(__name__)


class Checkpoints:
    """The newest two checkpoints in one folder, by step; orbax writes each atomically.

    A checkpoint of arrays on accelerators is written in the background, while training goes on; the next one, and the
    end of the block, wait for it. The digests of its files are written last, and checked before it is used. All
    processes of a run open, save and restore together; process 0 checks.
    """

    def __init__(self, folder: Path, saved: Callable[[], None] = lambda: None) -> None:
        """Open the folder, and remove checkpoints that are damaged if an older one is whole.

        Args:
            folder: The directory of the checkpoints.
            saved: A function that process 0 calls after each checkpoint is written, in another thread.

        Raises:
            CorruptRecord: If there are checkpoints and none is whole.
        """
        self._folder, self._saved = folder.absolute(), saved
        # Before orbax opens the folder: it takes damaged checkpoints for unfinished or newer ones.
        distributed.from_main(self._remove_damaged)
        self._opened: ocp.CheckpointManager | None = None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def save(self, step: int, state: PyTree, notes: Mapping[str, Any]) -> None:
        """Write the arrays of `state`, which may be donated after this, and the JSON values of `notes`.

        Raises:
            OSError: If this checkpoint, or the one before, cannot be written, as on a full disk. Earlier ones stay.
            NotFinite: If an array is not finite; nothing is written.
        """
        self.finish()
        require_finite({"state": state})
        arrays = ocp.args.StandardSave(state)
        with _system_errors(self._folder):
            manager = self._manager(state)
            manager.save(step, args=ocp.args.Composite(state=arrays, notes=ocp.args.JsonSave(dict(notes))))
        self._writing = self._writer.submit(self._complete, manager, step)
        if is_read_in_place(state):
            self.finish()

    def finish(self) -> None:
        """Wait until the last checkpoint is whole.

        Raises:
            OSError: If it could not be written. Earlier ones stay.
        """
        if self._writing is None:
            return
        try:
            self._writing.result()
        finally:
            if self._writing.done():
                self._writing = None
        # The others wait, because collectives of devices would time out while process 0 reads the files again.
        distributed.from_main(lambda: None)

    def latest(self, template: PyTree) -> tuple[PyTree, dict[str, Any]] | None:
        """Return the newest checkpoint in the shapes and shardings of `template`, or None if there is none.

        The arrays of `template` are deleted before the checkpoint is read, so that a resumed run needs no more memory
        than a new one. They stay if there is no checkpoint.

        Raises:
            CorruptRecord: If it cannot be read and has no digests, by which its damage would have been found.
        """
        self.finish()
        manager = self._manager(template)
        step = manager.latest_step()
        if step is None:
            return None
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
        for leaf in jax.tree.leaves(template):
            leaf.delete()
        restore = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), notes=ocp.args.JsonRestore())
        try:
            restored = manager.restore(step, args=restore)
        except Exception as error:  # orbax raises many types
            if has_digests(self._folder / str(step)):
                raise
            raise CorruptRecord(_none_whole(self._folder, self._folder / str(step))) from error
        return restored["state"], restored["notes"]

    @contextmanager
    def named_in_errors(self, at: str, keys: str) -> Iterator[None]:
        """Complete the text of a NotFinite that the block raises with the checkpoint to go on from.

        Args:
            at: The step or update, such as `step 3`.
            keys: The settings to lower if it happens again.
        """
        try:
            yield
        except NotFinite as error:
            step = self._opened.latest_step() if self._opened else None
            start = "the beginning, because there is no checkpoint yet" if step is None else self._folder / str(step)
            raise NotFinite(
                f"{error} in {at}, of which nothing was saved or served; run the same command to go on from {start}, "
                f"or lower {keys} if it happens again, which starts the stage over"
            ) from error

    def _manager(self, state: PyTree) -> ocp.CheckpointManager:
        """Return orbax's manager of the folder, opened for arrays like those of `state`."""
        if self._opened is None:
            limit = concurrent_gb(state)
            handlers = {
                "state": ocp.StandardCheckpointHandler(save_concurrent_gb=limit, restore_concurrent_gb=limit),
                "notes": ocp.JsonCheckpointHandler(),
            }
            patient = ocp.AsyncOptions(timeout_secs=WRITING_SECONDS)
            options = ocp.CheckpointManagerOptions(max_to_keep=NUM_KEPT, async_options=patient)
            self._opened = ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)
        return self._opened

    def _complete(self, manager: ocp.CheckpointManager, step: int) -> None:
        with _system_errors(self._folder):
            manager.wait_until_finished()
        if distributed.is_main():
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
        try:
            if error is None or isinstance(error, preemption.Saved):
                self.finish()
            elif self._writing is not None and (failure := self._writing.exception()) is not None:
                log.warning("the last checkpoint in %s could not be written: %s", self._folder, failure)
        finally:
            self._writer.shutdown()
            with suppress(Exception):  # `finish` has raised it, or there is another
                if self._opened is not None:
                    self._opened.close()


def is_read_in_place(state: PyTree) -> bool:
    """Return whether the writer reads arrays where they lie, in host memory, and not from copies that it makes first.

    Then a step that is given the arrays must not begin before they are written.
    """
    shardings = [leaf.sharding for leaf in jax.tree.leaves(state) if isinstance(leaf, jax.Array)]
    return any(
        sharding.memory_kind == HOST or next(iter(sharding.device_set)).platform == "cpu" for sharding in shardings
    )


def concurrent_gb(state: PyTree) -> int:
    """Return how many GB of arrays orbax may write or read at a time, each with a copy in host memory.

    On a CPU, where the arrays lie there themselves, it is little more than the largest array.
    """
    if jax.default_backend() != "cpu":
        return ACCELERATOR_GB
    return 1 + max(leaf.nbytes for leaf in jax.tree.leaves(state)) // 10**9


@contextmanager
def _system_errors(folder: Path) -> Iterator[None]:
    """Raise the OSError that an error of orbax or tensorstore stands for; they raise many types."""
    try:
        yield
    except Exception as error:
        raise system_error(error, folder) or error from None


def _none_whole(folder: Path, damaged: Path) -> str:
    return (
        f"no checkpoint in {folder} is whole ({damaged} is damaged or missing); remove the folder with "
        f"`{shell_command('rm', '-r', folder)}` to train from the beginning"
    )
