"""Check the target of a user's table, and write it in the form that the metric takes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from rollout.task_tools.from_table.column_types import odd_cells, typed
from rollout.task_tools.from_table.numbers import is_formatted, is_infinite, is_marker, plain_number
from tasks.metric import METRICS
from tasks.nearest import nearest
from tasks.quoting import quoted

MIN_OF_CLASS = 5
MAX_CLASSES = 200
CLASS_METRICS = ("accuracy", "auc", "f1", "log_loss", "qwk")
NUMBER_METRICS = ("mae", "rmse", "rmsle", "pearson")
TRUTHS = {"false": "0", "true": "1"}


@dataclass(frozen=True)
class Target:
    """The target of a table.

    Attributes:
        cells: The target of each row as text.
        is_numeric: Whether all cells are numbers, which a script may read as numbers.
        classes: The labels, sorted; empty for a metric of numbers.
        notes: Lines for the user.
    """

    cells: list[str]
    is_numeric: bool
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def known_target(cells: Sequence[str], metric: str, decimal: str) -> list[bool]:
    """Return whether each row has a target: a cell that is not empty and, among numbers, no marker such as NA."""
    known = [*CLASS_METRICS, *NUMBER_METRICS]
    if metric not in known:
        known_elsewhere = "; to use it, write the task's folder yourself" if metric in METRICS else ""
        raise ValueError(
            f"metric {quoted(metric)}{nearest(metric, known)}: expected {', '.join(known)}{known_elsewhere}"
        )
    if metric in NUMBER_METRICS or typed("target", cells, decimal).is_numeric:
        return [bool(cell) and not is_marker(cell) for cell in cells]
    return list(map(bool, cells))


def target_values(name: str, cells: Sequence[str], places: Sequence[str], metric: str, decimal: str) -> Target:
    """Return the target in the form that the metric takes.

    Args:
        name: The name of the column.
        cells: The cells of the rows that have a target.
        places: The place of each row.
        metric: The metric.
        decimal: The decimal mark.

    Raises:
        ValueError: If the metric does not fit the target. The message names the first cell that it does not take.
    """
    if metric in NUMBER_METRICS:
        return Target(_numbers(name, cells, places, metric, decimal), True, (), ())
    column = typed(name, [cell.strip() for cell in cells], decimal)
    labels, is_numeric = column.cells, column.is_numeric and _are_exact(column.cells)
    if is_numeric:
        labels = _same_spelling(labels)
    elif {label.lower() for label in labels} <= set(TRUTHS):
        labels, is_numeric = [TRUTHS[label.lower()] for label in labels], True
    _require_classes(name, labels, metric)
    if metric == "qwk":
        for label, place in zip(labels, places, strict=True):
            if not is_numeric or float(label) % 1:
                raise ValueError(
                    f"qwk needs whole numbers, but column {quoted(name)} holds {quoted(label)} in {place}; use accuracy"
                )
    if metric == "auc":
        largest = max(labels, key=float) if is_numeric else max(labels)
        labels, is_numeric = ["1" if label == largest else "0" for label in labels], True
    notes = [
        f"{quoted(label)} in column {quoted(name)} counts as a class; pass --na {quoted(label)} if it means missing"
        for label in sorted(set(labels))
        if is_marker(label)
    ]
    classes = tuple(sorted(set(labels)))
    return Target(labels, is_numeric, classes, (*column.notes, *notes, *_alike(classes, name)))


def _alike(classes: Sequence[str], name: str) -> list[str]:
    """Return a line for each class that differs from the one before only in case or white space."""
    folded: dict[str, str] = {}
    lines = []
    for label in classes:
        other = folded.setdefault("".join(label.split()).casefold(), label)
        if other != label:
            lines.append(f"{quoted(other)} and {quoted(label)} in column {quoted(name)} count as two classes")
    return lines


def _numbers(name: str, cells: Sequence[str], places: Sequence[str], metric: str, decimal: str) -> list[str]:
    """Return the target as numbers. Raises ValueError, which names the first cell that is none."""
    odd = odd_cells(cells, decimal)
    for row in odd:
        cell = cells[row].strip()
        if is_infinite(cell):
            remedy = "write a finite number, or leave the row out"
        elif is_formatted(cell):
            remedy = "write plain numbers such as 1234.5, without signs or separators"
        elif 2 * len(odd) < len(cells):
            remedy = "write a number there, or leave the row out"
        else:
            remedy = f"use {', '.join(CLASS_METRICS)}"
        raise ValueError(
            f"{metric} needs numbers, but column {quoted(name)} holds {quoted(cell)} in {places[row]}; {remedy}, or "
            f"pass --na {quoted(cell)} if it means missing"
        )
    numbers = [plain_number(cell, decimal) or "" for cell in cells]
    if len({float(number) for number in numbers}) == 1:
        raise ValueError(f"column {quoted(name)} is {cells[0].strip()} in every row; there is nothing to learn")
    for number, place in zip(numbers, places, strict=True):
        if metric == "rmsle" and float(number) < 0:
            raise ValueError(
                f"rmsle needs numbers from 0 on, but column {quoted(name)} holds {number} in {place}; use rmse"
            )
    return numbers


def _are_exact(numbers: Sequence[str]) -> bool:
    """Return whether numbers have no more digits than a floating-point number."""
    return all(Decimal(repr(float(number))) == Decimal(number) for number in set(numbers))


def _same_spelling(numbers: Sequence[str]) -> list[str]:
    """Return labels that are numbers in the spelling in which a script writes them, so that 1 and 1.0 are one class."""
    distinct = set(numbers)
    are_whole = all(float(number) % 1 == 0 for number in distinct)
    spelled = {number: str(int(float(number))) if are_whole else repr(float(number)) for number in distinct}
    return [spelled[number] for number in numbers]


def _require_classes(column: str, labels: Sequence[str], metric: str) -> None:
    """Raise ValueError unless the labels are classes that the metric takes."""
    counts, name = Counter(labels), quoted(column)
    if len(counts) == 1:
        raise ValueError(f"column {name} is {quoted(labels[0])} in every row; there is nothing to learn")
    if len(counts) > MAX_CLASSES:
        raise ValueError(
            f"{metric} needs classes, but column {name} has {len(counts)} values; use {', '.join(NUMBER_METRICS)}"
        )
    rarest = min(sorted(counts), key=lambda label: counts[label])
    if counts[rarest] < MIN_OF_CLASS:
        raise ValueError(
            f"class {quoted(rarest)} of column {name} has {counts[rarest]} rows, expected at least {MIN_OF_CLASS}; "
            "leave its rows out, or merge it with another class"
        )
    if broken := next((label for label in counts if len(label.splitlines()) > 1), None):
        raise ValueError(f"class {quoted(broken)} of column {name} has a line break; write it on one line")
    if metric == "log_loss" and "id" in counts:
        raise ValueError(f"class 'id' of column {name} has the same name as the id column; rename the class")
    if metric == "auc" and len(counts) != 2:
        raise ValueError(f"auc needs two classes, but column {name} has {len(counts)}; use log_loss or accuracy")
