"""The table of oracles, and their verdicts on tasks. An oracle finds faults of a task without any model."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rollout.errors import InfrastructureError
from rollout.task_tools.groups import MAX_KNOWN
from rollout.task_tools.preparation import prepare_all
from rollout.task_tools.validation.case import UNCHECKED, Case, Failed, open_sandboxes
from rollout.task_tools.validation.initial_script import initial_script
from rollout.task_tools.validation.public_tables import answers_are_not_public, order_says_nothing
from rollout.task_tools.validation.sandbox_leaks import nothing_leaks
from rollout.task_tools.validation.score_order import constant_is_worse, gold_is_best, shuffled_is_worse
from tasks.entry import Entry
from tasks.registry import load_entry

# The oracles by the heading of their column. Each returns a short finding or raises Failed.
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
    """The verdict of one oracle on one task.

    Attributes:
        task: The task's name.
        oracle: A key of `ORACLES`.
        passed: Whether the oracle found no fault.
        finding: A description of the finding or of the fault.
        seconds: The duration of the check.
    """

    task: str
    oracle: str
    passed: bool
    finding: str
    seconds: float


def validate(
    entries: Sequence[Entry],
    data: Path,
    python: Path,
    raw: Path | None,
    say: Callable[[str], None],
    max_known: float = MAX_KNOWN,
) -> list[Verdict]:
    """Return the verdict of every oracle on every task.

    Args:
        entries: The tasks to validate.
        data: The folder of prepared tasks; tasks that are missing there are prepared first.
        python: The interpreter of the task environment.
        raw: The folder of raw files that the user already has.
        say: Called with a line of text for each task.
        max_known: The share of the test rows of which a copy, or the group, may be in the training data.

    Raises:
        ValueError: If a task cannot be prepared, or no sandbox can be started on this machine.
        OSError: If a file cannot be read or written.
    """
    prepare_all([entry for entry in entries if not _is_prepared(entry, data)], data, python, raw, say)
    verdicts: list[Verdict] = []
    with open_sandboxes(python) as sandboxes:
        for entry in entries:
            case = Case(load_entry(entry, data), sandboxes, max_known)
            of_task = [ask(oracle, case) for oracle in ORACLES]
            say(f"{entry.name}: {outcome(of_task)}")
            verdicts += of_task
    return verdicts


def outcome(verdicts: Sequence[Verdict]) -> str:
    """Return the outcome of the verdicts on one task in words, with the oracles that could not check it."""
    num_failed = sum(not verdict.passed for verdict in verdicts)
    unchecked = [verdict.oracle for verdict in verdicts if verdict.finding.endswith(UNCHECKED)]
    said = f"{num_failed} of {len(verdicts)} oracles failed" if num_failed else "passed"
    if unchecked:
        said += f"; {len(unchecked)} of {len(verdicts)} could not check it: {', '.join(unchecked)}"
    return said


def ask(oracle: str, case: Case) -> Verdict:
    """Return the verdict of one oracle on a task."""
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
    """Return a text table with a line of findings for each task, followed by a line for each failure."""
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
