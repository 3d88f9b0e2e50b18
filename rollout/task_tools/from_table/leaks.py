"""Find features that give the target away."""

from collections.abc import Mapping, Sequence

import numpy as np

from rollout.task_tools.from_table.numbers import is_number, plain_number
from tasks.quoting import quoted

MIN_SHARE = 0.5  # share of filled cells from which a column may be a copy
ROUNDING = 1e-10  # tolerance on a correlation of 1


def require_no_copy(features: Mapping[str, Sequence[str]], target: Sequence[str], name: str) -> None:
    """Raise ValueError if the cells of a feature are the target's wherever both are known; equal numbers are equal."""
    truth = list(map(_comparable, target))
    for feature, cells in features.items():
        known = [(cell, answer) for cell, answer in zip(cells, truth, strict=True) if cell.strip()]
        is_copy = len(known) >= MIN_SHARE * len(cells) and all(_comparable(cell) == answer for cell, answer in known)
        if is_copy and len({answer for _, answer in known}) > 1:
            raise ValueError(
                f"column {quoted(feature)} equals the target, {quoted(name)}, in every row, so it holds the answers; "
                "remove it"
            )


def revealing_features(
    features: Mapping[str, Sequence[str]], target: Sequence[str], name: str, are_classes: bool
) -> list[str]:
    """Return a line for each feature from which the target can be computed: other names for classes, another unit."""
    reveals = _names_classes if are_classes else _is_linear
    return [
        f"column {quoted(feature)} alone determines {quoted(name)} in every row; remove it if it is not known when the "
        "prediction is made"
        for feature, cells in features.items()
        if reveals(cells, target)
    ]


def _names_classes(cells: Sequence[str], classes: Sequence[str]) -> bool:
    """Return whether each value stands for one class, and each class has one value."""
    return len(set(zip(cells, classes, strict=True))) == len(set(cells)) == len(set(classes))


def _is_linear(cells: Sequence[str], target: Sequence[str]) -> bool:
    """Return whether the target is a linear function of a column of numbers without gaps."""
    if not all(is_number(cell, ".") for cell in cells):
        return False
    x, y = np.array(list(map(float, cells))), np.array(list(map(float, target)))
    return np.ptp(x) > 0 and abs(np.corrcoef(x, y)[0, 1]) > 1 - ROUNDING


def _comparable(cell: str) -> float | str:
    """Return a cell as a number or, if it is none or a number cannot hold its digits, as text without its case."""
    number = plain_number(cell, ".")
    return float(number) if number is not None and len(number) <= 15 else cell.strip().casefold()
