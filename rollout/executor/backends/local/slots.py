"""Slots: the user, cores and GPUs of each concurrent run on this machine."""

import itertools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tasks.task import Limits

# The uids of concurrent runs: far above those of any account, and distinct for every process that runs scripts.
FIRST_UID, UIDS_PER_PROCESS = 1 << 30, 128
_uid_numbers = itertools.count()


@dataclass(frozen=True)
class Slot:
    """A user, CPU cores and GPUs for one run.

    Attributes:
        uid: The uid that the script runs under, so that limits per user count one run; None if it cannot be chosen.
        cores: The numbers of the cores that it may use.
        gpus: The numbers of the GPUs that it may use.
    """

    uid: int | None
    cores: tuple[int, ...]
    gpus: tuple[int, ...] = ()


class Slots:
    """The slots of this process; not thread-safe."""

    def __init__(self, num_slots: int, can_choose_uid: bool, gpus: Sequence[int] = ()) -> None:
        """Make slots on the cores that this process may use.

        Args:
            num_slots: The number of slots.
            can_choose_uid: Whether runs have uids of their own.
            gpus: The numbers of the GPUs for scripts.
        """
        first = FIRST_UID + os.getpid() * UIDS_PER_PROCESS
        numbers = [first + next(_uid_numbers) % UIDS_PER_PROCESS for _ in range(num_slots)]
        self._uids: list[int | None] = [number if can_choose_uid else None for number in numbers]
        self._num_users = Counter(dict.fromkeys(sorted(os.sched_getaffinity(0)), 0))
        self._gpus = list(gpus)

    @contextmanager
    def take(self, limits: Limits) -> Iterator[Slot]:
        """Yield a slot with the cores that the fewest other runs use and GPUs that no other run uses.

        Raises:
            ValueError: If fewer GPUs are free than the limits ask for.
        """
        if limits.num_gpus > len(self._gpus):
            raise ValueError(
                f"limits.num_gpus={limits.num_gpus}, but {len(self._gpus)} of executor.gpus are free; list the GPUs "
                "for scripts there"
            )
        cores = sorted(self._num_users, key=self._num_users.__getitem__)[: limits.num_threads]
        gpus, self._gpus = self._gpus[: limits.num_gpus], self._gpus[limits.num_gpus :]
        uid = self._uids.pop()
        self._num_users.update(cores)
        try:
            yield Slot(uid, tuple(sorted(cores)), tuple(gpus))
        finally:
            self._num_users.subtract(cores)
            self._uids.append(uid)
            self._gpus += gpus
