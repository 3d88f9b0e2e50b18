"""Oracles: what can be known to be wrong with a task before any model has seen it."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rollout.errors import InfrastructureError
from rollout.task_tools.preparation import prepare_all
from rollout.task_tools.validation.case import Case, Failed, open_workshop
from rollout.task_tools.validation.initial_script import initial_script
from rollout.task_tools.validation.public_tables import answers_are_not_public, order_says_nothing
from rollout.task_tools.validation.sandbox_leaks import nothing_leaks
from rollout.task_tools.validation.score_order import constant_is_worse, gold_is_best, shuffled_is_worse
from tasks.entry import Entry
from tasks.registry import load_entry

# What each checks, by the heading of its column. An oracle returns a short finding, or raises Failed.
ORACLES: Mapping[str, Callable[[Case], str]] = {
    "initial script": initial_script,
    "answers": gold_is_best,
    "constant": constant_is_worse,
    "shuffled": shuffled_is_worse,
    "public": answers_are_not_public,
    "order": order_says_nothing,
    "sandbox": nothing_leaks,
}


@dataclass(frozen=True)
class Verdict:
    """What one oracle says of one task.

    Attributes:
        task: the task's name.
        oracle: a key of `ORACLES`.
        passed: whether it has nothing against the task.
        finding: what it found, in words.
        seconds: how long it took.
    """

    task: str
    oracle: str
    passed: bool
    finding: str
    seconds: float


def validate(
    entries: Sequence[Entry], data: Path, python: Path, raw: Path | None, say: Callable[[str], None]
) -> list[Verdict]:
    """Return what every oracle says of every task; `say` gets a line for each task as it is done.

    What is not prepared in `data` is prepared first, from the files in `raw` where it needs some.

    Raises:
        ValueError: if a task cannot be prepared, or no sandbox can be made here.
        OSError: if a file cannot be read or written.
    """
    prepare_all([entry for entry in entries if not _is_prepared(entry, data)], data, python, raw, say)
    verdicts: list[Verdict] = []
    with open_workshop(python) as workshop:
        for entry in entries:
            case = Case(load_entry(entry, data), workshop)
            found = [ask(oracle, case) for oracle in ORACLES]
            bad = sum(not verdict.passed for verdict in found)
            say(f"{entry.name}: {f'{bad} of {len(found)} oracles failed' if bad else 'passed'}")
            verdicts += found
    return verdicts


def ask(oracle: str, case: Case) -> Verdict:
    """Return what one oracle says of a task."""
    start = time.monotonic()
    try:
        finding, passed = ORACLES[oracle](case), True
    except (Failed, InfrastructureError) as failure:
        finding, passed = str(failure), False
    return Verdict(case.task.name, oracle, passed, finding, round(time.monotonic() - start, 1))


def _is_prepared(entry: Entry, data: Path) -> bool:
    try:
        load_entry(entry, data)
    except ValueError:
        return False
    return True


def table(verdicts: Sequence[Verdict]) -> str:
    """Return the findings, a line a task, and below them the failures, a line each."""
    rows = [["task", *ORACLES, "seconds"]]
    for task in dict.fromkeys(verdict.task for verdict in verdicts):
        of_task = [verdict for verdict in verdicts if verdict.task == task]
        cells = [verdict.finding if verdict.passed else "FAILED" for verdict in of_task]
        rows.append([task, *cells, f"{sum(verdict.seconds for verdict in of_task):.0f}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    failures = [f"{v.task}: {v.oracle}: {v.finding}" for v in verdicts if not v.passed]
    return "\n".join([*lines, "", *failures] if failures else lines)


def as_json(verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts as a JSON list."""
    return json.dumps([asdict(verdict) for verdict in verdicts], indent=1)
