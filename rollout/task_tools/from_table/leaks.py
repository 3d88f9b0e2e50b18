"""Find features that give the target away."""

from collections.abc import Mapping, Sequence

import numpy as np

from rollout.task_tools.from_table.column_types import TypedColumn
from rollout.task_tools.from_table.numbers import plain_number
from rollout.task_tools.from_table.target import Target
from tasks.quoting import quoted, shell_command

MIN_SHARE = 0.5  # share of filled cells from which a column may be a copy
MIN_VALUES = 20  # different values that cannot agree with the target by chance
ROUNDING = 1e-10  # tolerance on a correlation of 1


def require_no_copy(features: Mapping[str, Sequence[str]], target: Sequence[str], name: str) -> None:
    """Raise ValueError if the cells of a feature are the target's wherever both are known; equal numbers are equal."""
    truth = list(map(_comparable, target))
    for feature, cells in features.items():
        known = [(cell, answer) for cell, answer in zip(cells, truth, strict=True) if cell]
        if any(_comparable(cell) != answer for cell, answer in known):
            continue
        num_values, many = len({answer for _, answer in known}), len(known) >= MIN_SHARE * len(cells)
        if many and num_values > 1 or num_values >= MIN_VALUES:
            where = "in every row" if len(known) == len(cells) else f"in all {len(known)} rows in which it is filled"
            raise ValueError(
                f"column {quoted(feature)} equals the target, {quoted(name)}, {where}, so it holds the answers; "
                "remove it"
            )


def renamed_classes(features: Mapping[str, Sequence[str]], classes: Sequence[str]) -> list[str]:
    """Return the features whose values stand for one class each, each class having one value."""
    num_classes = len(set(classes))
    found = [name for name, cells in features.items() if len(set(cells)) == num_classes]
    return [name for name in found if len(set(zip(features[name], classes, strict=True))) == num_classes]


def rescaled(features: Mapping[str, np.ndarray], target: Sequence[str]) -> list[str]:
    """Return the features of which the target is a linear or monotonic function; all are numbers without gaps."""
    y = np.array(list(map(float, target)))
    return [
        name
        for name, x in features.items()
        if np.ptp(x) > 0 and (abs(np.corrcoef(x, y)[0, 1]) > 1 - ROUNDING or _is_monotonic(x, y))
    ]


def numbering(features: Mapping[str, np.ndarray], num_test: int) -> list[str]:
    """Return the features that count the rows, which tell the order of the table; test rows may restart the count."""

    def counts(numbers: np.ndarray) -> bool:
        steps = np.diff(numbers)
        if num_test:
            steps = np.delete(steps, len(steps) - num_test)  # from the last training row to the first test row
        return len(steps) > 0 and bool((steps == 1).all())

    return [name for name, numbers in features.items() if counts(numbers)]


def _is_monotonic(x: np.ndarray, y: np.ndarray) -> bool:
    """Return whether the numbers `y` are a rising or falling function of `x` with many values."""
    pairs = np.unique(np.column_stack([x, y]), axis=0)
    steps = np.diff(pairs, axis=0)
    return bool(
        len(np.unique(y)) >= MIN_VALUES
        and (steps[:, 0] > 0).all()
        and ((steps[:, 1] >= 0).all() or (steps[:, 1] <= 0).all())
    )


def _comparable(cell: str) -> float | str:
    """Return a cell as a number or, if it is none or a number cannot hold its digits, as text without its case."""
    number = plain_number(cell, ".")
    return float(number) if number is not None and len(number) <= 15 else cell.strip().casefold()


def leak_notes(features: Mapping[str, TypedColumn], values: Target, target: str, num_test: int) -> list[str]:
    """Return a line for each feature that tells the order of the table or determines the target.

    Args:
        features: The features.
        values: The target.
        target: Its name.
        num_test: The number of the last rows, which are those of the user's own test file.
    """
    cells = {name: column.cells for name, column in features.items()}
    numbers = {
        name: np.array(list(map(float, column.cells)))
        for name, column in features.items()
        if column.is_numeric and all(column.cells)
    }
    told = renamed_classes(cells, values.cells) if values.classes else rescaled(numbers, values.cells)
    return [
        *(
            f"column {quoted(name)} counts the rows, so it tells the order of the table; to leave it out, pass "
            + shell_command("--id", name)
            for name in numbering(numbers, num_test)
        ),
        *(
            f"column {quoted(name)} alone determines {quoted(target)} in every row; remove it if it is not known when "
            "the prediction is made"
            for name in told
        ),
    ]
