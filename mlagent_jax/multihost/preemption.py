"""SIGTERM as notice that the machine is wanted: training comes to the end of its step and saves before it stops."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mlagent_jax.multihost import distributed


class Preempted(KeyboardInterrupt):
    """The run ends because of a SIGTERM."""


class Saved(Preempted):
    """Training has saved and ends, on every process at the same step."""


class _Notice:
    """What the signal handler and the training loop tell each other."""

    is_heeded = False  # somebody asks for it between steps
    is_given = False


_notice = _Notice()


def give_notice() -> bool:
    """Take a SIGTERM; returns whether the work under way will stop by itself, as it does for the first one only."""
    if not _notice.is_heeded or _notice.is_given:
        return False
    _notice.is_given = True
    return True


@contextmanager
def defer_sigterm() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns, at the same step of all processes, whether one of them was given notice.

    Whoever is told so saves, then raises Saved.
    """
    _notice.is_heeded, _notice.is_given = True, False
    try:
        yield lambda: distributed.any_process(_notice.is_given)
        if _notice.is_given:
            raise Preempted  # after the last step, when nobody asks any more
    finally:
        _notice.is_heeded = False


@contextmanager
def at_once() -> Iterator[None]:
    """Has SIGTERM raise Preempted inside the block, where waiting would be long and whatever is finished is kept."""
    if _notice.is_given:
        raise Preempted
    before, _notice.is_heeded = _notice.is_heeded, False
    try:
        yield
    finally:
        _notice.is_heeded = before
