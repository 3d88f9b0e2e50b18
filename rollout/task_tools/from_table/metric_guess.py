"""Guess the metric of a user's table from its target."""

from collections.abc import Sequence
from itertools import compress

from rollout.task_tools.from_table.numbers import is_formatted, is_number_with_any_mark
from rollout.task_tools.from_table.target import known_target, target_values
from tasks.metric import METRICS, better_direction

MAX_NUMBERS = 20  # different whole numbers that count as classes


def guess_metric(name: str, cells: Sequence[str], places: Sequence[str], decimal: str) -> str:
    """Return the metric that fits a target: auc of two classes, accuracy of several, else rmse.

    Args:
        name: The name of the column.
        cells: The cells as they are written, empty if missing.
        places: The place of each cell.
        decimal: The decimal mark.

    Raises:
        ValueError: If none fits.
    """
    faults: dict[str, ValueError] = {}
    is_count = False
    for metric in ("auc", "rmse", "accuracy"):
        try:
            is_known = known_target(cells, metric, decimal)
            values = target_values(
                name, list(compress(cells, is_known)), list(compress(places, is_known)), metric, decimal
            )
        except ValueError as error:
            faults[metric] = error
            continue
        if metric == "rmse" and _are_few_and_whole(values.cells):
            is_count = True
            continue
        return metric
    if is_count:  # a count with rare values, which are no classes
        return "rmse"
    are_numbers = len(set(cells)) > MAX_NUMBERS and 2 * sum(map(_is_like_number, cells)) > len(cells)
    raise faults["rmse" if are_numbers else "accuracy"]


def metric_note(metric: str) -> str:
    """Return a line for the user about a metric that was guessed."""
    better = better_direction(METRICS[metric].direction)
    return f"the metric is {metric}, {better} is better; another one with --metric"


def _is_like_number(cell: str) -> bool:
    return is_number_with_any_mark(cell) or is_formatted(cell.strip())


def _are_few_and_whole(numbers: Sequence[str]) -> bool:
    values = set(numbers)
    return len(values) <= MAX_NUMBERS and all(float(value) % 1 == 0 for value in values)
