"""SIGTERM as a notice of preemption: training finishes its step and saves before it stops."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mlagent_jax.multihost import distributed


class Preempted(KeyboardInterrupt):
    """The end of a run by SIGTERM."""


class Saved(Preempted):
    """The end of a training run that has saved its state, on every process at the same step."""


class _Notice:
    """The state that the signal handler and the training loop share."""

    is_deferred = False  # a training loop polls for the notice between steps
    is_given = False


_notice = _Notice()


def give_notice() -> bool:
    """Record a SIGTERM, and return whether the running work will stop on its own, as it does only for the first one."""
    if not _notice.is_deferred or _notice.is_given:
        return False
    _notice.is_given = True
    return True


@contextmanager
def defer_sigterm() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns, at the same step of all processes, whether one of them got a SIGTERM.

    If it returns True, the caller saves and raises Saved.
    """
    _notice.is_deferred, _notice.is_given = True, False
    try:
        yield lambda: distributed.any_process(_notice.is_given)
        if _notice.is_given:
            raise Preempted  # after the last step, when the loop no longer polls
    finally:
        _notice.is_deferred = _notice.is_given = False


@contextmanager
def raise_on_sigterm() -> Iterator[None]:
    """Make SIGTERM raise Preempted inside the block, for long waits during which all finished work is kept."""
    if _notice.is_given:
        raise Preempted
    before, _notice.is_deferred = _notice.is_deferred, False
    try:
        yield
    finally:
        _notice.is_deferred = before
