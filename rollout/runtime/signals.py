"""Exceptions that signal handlers raise in the main thread."""

import signal
import sys
from types import FrameType
from typing import NoReturn

RETRY_SECONDS = 0.05


def raise_from_handler(error: BaseException) -> NoReturn:
    """Raise `error` from a signal handler, and again for as long as Python discards it.

    Python calls a handler between any two instructions of the main thread. In a finalizer or a callback of a weak
    reference it would print the exception and go on. This uses SIGALRM, and replaces `sys.unraisablehook` for good:
    the program is about to end.
    """
    before = sys.unraisablehook

    def raise_again(number: int, frame: FrameType | None) -> None:
        raise error

    def hook(discarded: "sys.UnraisableHookArgs") -> None:
        found = discarded.exc_value
        while found is not None and found is not error:  # a finalizer may have raised another one meanwhile
            found = found.__context__
        if found is error:
            signal.signal(signal.SIGALRM, raise_again)
            signal.setitimer(signal.ITIMER_REAL, RETRY_SECONDS)
        if discarded.exc_value is not error:
            before(discarded)

    sys.unraisablehook = hook
    raise error
