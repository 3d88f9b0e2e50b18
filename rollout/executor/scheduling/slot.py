"""What a run has for itself while it lasts: a user, cores, GPUs."""

import itertools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tasks.task import Limits

# The uids of concurrent runs: far above any account, and apart for every process that runs scripts at the same time.
FIRST_UID, UIDS_PER_PROCESS = 1 << 30, 128
_uid_numbers = itertools.count()


@dataclass(frozen=True)
class Place:
    """One run's own.

    Attributes:
        uid: whom the script runs as, so that limits by user count one run; None where it cannot be chosen.
        cores: the cores that it may use, by number.
        gpus: the GPUs that it may use, by number.
    """

    uid: int | None
    cores: tuple[int, ...]
    gpus: tuple[int, ...] = ()


class Slots:
    """Gives places out and takes them back; not for several threads."""

    def __init__(self, slots: int, can_choose_uid: bool, gpus: Sequence[int] = ()) -> None:
        """Has as many as `slots`, all on the cores that this process may use."""
        first = FIRST_UID + os.getpid() * UIDS_PER_PROCESS
        numbers = [first + next(_uid_numbers) % UIDS_PER_PROCESS for _ in range(slots)]
        self._uids: list[int | None] = [number if can_choose_uid else None for number in numbers]
        self._num_users = Counter(dict.fromkeys(sorted(os.sched_getaffinity(0)), 0))
        self._gpus = list(gpus)

    @contextmanager
    def place(self, limits: Limits) -> Iterator[Place]:
        """Yield a place for the block: the cores that fewest other runs use, GPUs that none does.

        Raises ValueError for more GPUs than are free.
        """
        if limits.num_gpus > len(self._gpus):
            raise ValueError(
                f"limits.num_gpus={limits.num_gpus}, but {len(self._gpus)} of executor.gpus are free; list the GPUs "
                "of scripts there"
            )
        cores = sorted(self._num_users, key=self._num_users.__getitem__)[: limits.num_threads]
        gpus, self._gpus = self._gpus[: limits.num_gpus], self._gpus[limits.num_gpus :]
        uid = self._uids.pop()
        self._num_users.update(cores)
        try:
            yield Place(uid, tuple(sorted(cores)), tuple(gpus))
        finally:
            self._num_users.subtract(cores)
            self._uids.append(uid)
            self._gpus += gpus
