"""Find features that give the target away."""

from collections.abc import Mapping, Sequence

import numpy as np

from rollout.task_tools.from_table.numbers import plain_number
from tasks.quoting import quoted

MIN_SHARE = 0.5  # share of filled cells from which a column may be a copy
ROUNDING = 1e-10  # tolerance on a correlation of 1


def require_no_copy(features: Mapping[str, Sequence[str]], target: Sequence[str], name: str) -> None:
    """Raise ValueError if the cells of a feature are the target's wherever both are known; equal numbers are equal."""
    truth = list(map(_comparable, target))
    for feature, cells in features.items():
        known = [(cell, answer) for cell, answer in zip(cells, truth, strict=True) if cell]
        if len(known) < MIN_SHARE * len(cells) or any(_comparable(cell) != answer for cell, answer in known):
            continue
        if len({answer for _, answer in known}) > 1:
            raise ValueError(
                f"column {quoted(feature)} equals the target, {quoted(name)}, in every row, so it holds the answers; "
                "remove it"
            )


def renamed_classes(features: Mapping[str, Sequence[str]], classes: Sequence[str]) -> list[str]:
    """Return the features whose values stand for one class each, each class having one value."""
    num_classes = len(set(classes))
    found = [name for name, cells in features.items() if len(set(cells)) == num_classes]
    return [name for name in found if len(set(zip(features[name], classes, strict=True))) == num_classes]


def rescaled(features: Mapping[str, Sequence[str]], target: Sequence[str]) -> list[str]:
    """Return the features of which the target is a linear function; all are numbers without gaps."""
    y = np.array(list(map(float, target)))
    found = []
    for name, cells in features.items():
        x = np.array(list(map(float, cells)))
        if np.ptp(x) > 0 and abs(np.corrcoef(x, y)[0, 1]) > 1 - ROUNDING:
            found.append(name)
    return found


def _comparable(cell: str) -> float | str:
    """Return a cell as a number or, if it is none or a number cannot hold its digits, as text without its case."""
    number = plain_number(cell, ".")
    return float(number) if number is not None and len(number) <= 15 else cell.strip().casefold()
