"""Find features that give the target away."""

from collections.abc import Mapping, Sequence

from rollout.task_tools.from_table.numbers import plain_number
from tasks.quoting import quoted

MIN_SHARE = 0.5  # share of filled cells from which a column may be a copy


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


def renamed_classes(features: Mapping[str, Sequence[str]], target: Sequence[str], name: str) -> list[str]:
    """Return a line for each feature whose values correspond one to one to the classes of the target."""
    lines = []
    for feature, cells in features.items():
        pairs = set(zip(cells, target, strict=True))
        if len(pairs) == len(set(cells)) == len(set(target)):
            lines.append(
                f"column {quoted(feature)} has one value for each class of {quoted(name)} and so holds the answers; "
                "remove it unless it is known when the prediction is made"
            )
    return lines


def _comparable(cell: str) -> float | str:
    """Return a cell as a number or, if it is none or a number cannot hold its digits, as text without its case."""
    number = plain_number(cell, ".")
    return float(number) if number is not None and len(number) <= 15 else cell.strip().casefold()
