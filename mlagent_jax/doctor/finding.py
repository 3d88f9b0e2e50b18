"""The result of one check, and its line."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from rollout.errors import InfrastructureError
from tasks.error_line import error_line, joined

WIDTH = 12


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        name: The name of the check.
        passed: Whether it passed.
        text: What was found, or what failed and the remedy.
        seconds: The time that it took.
    """

    name: str
    passed: bool
    text: str
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{'pass' if self.passed else 'FAIL'}  {self.name:{WIDTH}} {self.text}"


def examine(name: str, check: Callable[[], str]) -> Finding:
    """Return the finding of a check, which returns what it found, or raises; no error of a library ends the others."""
    began = time.monotonic()
    try:
        text, passed = check(), True
    except Exception as error:  # whatever a driver raises
        text, passed = explain(error), False
    return Finding(name, passed, text, round(time.monotonic() - began, 1))


def explain(error: Exception) -> str:
    """Return one line for an error; that of a library gets its type."""
    if isinstance(error, (ValueError, OSError, InfrastructureError)):
        return error_line(error)
    return f"{type(error).__name__}: {joined(str(error))[:500]}"
