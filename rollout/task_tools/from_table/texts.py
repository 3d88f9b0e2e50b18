"""Find the column of texts in a table."""

import statistics
from collections.abc import Mapping, Sequence

import pandas as pd

from rollout.task_tools.from_table.column_types import Feature
from tasks.quoting import quoted, quoted_list, shell_command

MIN_SPACES = 3  # in a text
TEXT_CHARACTERS = 40  # average length from which a column counts as text


def find_texts(
    features: Sequence[Feature], cells: pd.DataFrame, stated: frozenset[str], sides: Sequence[str]
) -> tuple[str, list[str]]:
    """Return the column of texts, `` if there is none, and a line for the user about the columns beside it.

    Args:
        features: The features.
        cells: Their cells.
        stated: The columns that the user states to be words, by the names in the file.
        sides: The columns by which the rows are split, by the names in the task's files.
    """
    words = [each for each in features if not (each.is_numeric or each.written in stated or each.name in sides)]
    text = _text_column({each.name: cells[each.name].tolist() for each in words})
    others = [each.written for each in features if text and each.name not in (text, *sides)]
    if not others:
        return text, []
    return text, [
        f"column {quoted(text)} holds texts, so train.py reads only it, without {quoted_list(others)}; if it holds "
        "no texts, pass " + shell_command("--words", text)
    ]


def _text_column(words: Mapping[str, Sequence[str]]) -> str:
    """Return the column of texts among columns of words, `` if there is none."""
    lengths = {
        name: statistics.mean(map(len, filter(None, cells)))
        for name, cells in words.items()
        if len(set(cells)) > len(cells) / 2 < sum(map(_has_words, cells))
    }
    longest = max(lengths, key=lambda name: lengths[name], default="")
    return longest if longest and lengths[longest] >= TEXT_CHARACTERS else ""


def _has_words(cell: str) -> bool:
    """Return whether a cell has several words, which an address in the web or a hash has not; Chinese has no spaces."""
    return cell.count(" ") >= MIN_SPACES or not cell.isascii()
