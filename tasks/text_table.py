"""Read and write the CSV files of tasks with every cell as text, so that no cell is changed, shifted or dropped."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import csv as arrow_csv

from tasks.quoting import quoted

BLOCK_BYTES = 2**31 - 1  # the largest block that Arrow accepts
WRONG_ROW = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+)")  # the row number counts the header


def read_text_table(file: Path) -> pd.DataFrame:
    """Return a CSV file with every cell as text, empty ones included.

    Raises ValueError, which names the file and the place, unless all names are distinct and all rows have their fields.
    """
    header = read_names(file)
    block = min(file.stat().st_size + 1, BLOCK_BYTES)  # usually a single block: no row may reach into a third one
    try:
        table = arrow_csv.read_csv(
            file,
            arrow_csv.ReadOptions(use_threads=False, block_size=block),
            arrow_csv.ParseOptions(newlines_in_values=True),
            arrow_csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string())),
        )
    except pa.ArrowInvalid as error:
        if row := WRONG_ROW.search(str(error)):
            reason = f"row {int(row[1]) - 1} has {row[3]} fields, but the header has {row[2]}"
        else:
            reason = "its rows are not UTF-8 text in the form of its header"
        raise ValueError(f"{file} is not a CSV table: {reason}; write it again") from None
    return table.to_pandas()


def read_names(file: Path) -> list[str]:
    """Return the names of a CSV file's columns. Raises ValueError if there are none, or two that are equal."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            names = next(csv.reader(lines), [])
    except (UnicodeDecodeError, csv.Error):
        raise ValueError(f"{file} is not a CSV table: its header is not UTF-8 text; write it again") from None
    if not names:
        raise ValueError(f"{file} is not a CSV table: it has no header in its first line; write it again")
    require_distinct(file, names)
    return names


def require_distinct(file: Path, names: Sequence[str]) -> None:
    """Raise ValueError if two columns have the same name: a reader would rename one, and may reveal the answers."""
    for number, name in enumerate(names):
        if name in names[:number]:
            raise ValueError(
                f"{file} is not a CSV table: columns {names.index(name) + 1} and {number + 1} are both named "
                f"{quoted(name)}; rename or remove one"
            )


def write_table(table: pd.DataFrame, file: Path, floats: str | None = None) -> None:
    """Write a CSV file from which every text is read back as it is.

    Python's csv module does not quote a carriage return, which readers take for the end of a row, so all texts of a
    table with one are quoted.

    Args:
        table: The table.
        file: The file.
        floats: The format of numbers; None writes all digits.
    """
    texts = [table.iloc[:, number] for number in range(table.shape[1]) if table.dtypes.iloc[number].kind not in "biuf"]
    has_return = any(isinstance(cell, str) and "\r" in cell for cells in (table.columns, *texts) for cell in cells)
    quoting = csv.QUOTE_NONNUMERIC if has_return else csv.QUOTE_MINIMAL
    table.to_csv(file, index=False, float_format=floats, quoting=quoting)
