"""Recognize files whose cells have types, and read them: Parquet, Feather, Excel and JSON."""

import re
from collections.abc import Mapping
from pathlib import Path

from rollout.task_tools.from_table.containers import ZIP, is_workbook
from rollout.task_tools.from_table.records import Record
from tasks.quoting import quoted

PARQUET = re.compile(rb"PAR1(?![,;|\t\r\n])")  # a table of text may begin with a column of that name
JSON_START = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:\{\s*[\"}]|\[\s*[\{\]])")


def read_typed(
    file: Path, data: bytes, sheet: str | None, text_options: Mapping[str, str | None]
) -> list[Record] | None:
    """Return the header and the rows of a file whose cells have types, None if it is text.

    Args:
        file: The file, for messages.
        data: Its bytes.
        sheet: The sheet of a workbook that the user states, None for the only one.
        text_options: The options about text by their names, None for those that are not stated.

    Raises:
        ValueError: If it cannot be read, or options were stated that do not apply to it.
    """
    is_excel = data.startswith(ZIP) and is_workbook(data)
    if sheet is not None and not is_excel:
        raise ValueError(f"--sheet is {quoted(sheet)}, but {file} is no Excel workbook; leave it out")
    if data.startswith(b"FEA1"):
        raise ValueError(f"{file} is a Feather file of version 1; write it as version 2 or as Parquet")
    is_arrow, is_parquet = data.startswith(b"ARROW1"), PARQUET.match(data) is not None
    if not (is_excel or is_arrow or is_parquet or JSON_START.match(data)):
        return None
    for option in (name for name, value in text_options.items() if value is not None):
        raise ValueError(f"{file} has cells with types, which --{option} does not apply to; leave it out")
    # Imported here, because tables of text need none of these libraries.
    if is_excel:
        from rollout.task_tools.from_table.excel_file import read_excel

        return read_excel(file, data, sheet)
    if is_arrow or is_parquet:
        from rollout.task_tools.from_table.arrow_files import read_feather, read_parquet

        return read_parquet(file, data) if is_parquet else read_feather(file, data)
    from rollout.task_tools.from_table.json_rows import read_json

    return read_json(file, data)
