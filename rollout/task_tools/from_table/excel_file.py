"""Read the records of a sheet of an Excel workbook, with every cell as text."""

import io
import warnings
from pathlib import Path
from typing import Any

from openpyxl import load_workbook
from openpyxl.utils.escape import unescape

from rollout.task_tools.from_table.cell_text import cell_text
from rollout.task_tools.from_table.records import Record
from tasks.quoting import quoted, quoted_list


def read_excel(file: Path, data: bytes, sheet: str | None) -> list[Record]:
    """Return the records of a sheet; the number of a record is that of its row there.

    Args:
        file: The file, for messages.
        data: Its bytes.
        sheet: The name of the sheet; None for the only one with cells.

    Raises:
        ValueError: If the workbook is damaged, has several sheets with cells and none is stated, or no such sheet, a
            formula has no value, or cells are merged.
    """
    workbook = _load(file, data, data_only=True)
    filled = {each.title: found for each in workbook.worksheets if (found := _texts(each))}
    if sheet is None and len(filled) != 1:
        what = f"has the sheets {quoted_list(list(filled))}; state one with --sheet" if filled else "has no cells"
        raise ValueError(f"{file} {what}")
    name = next(iter(filled)) if sheet is None else sheet
    if name not in filled:
        raise ValueError(f"{file} has no sheet {quoted(name)} with cells; it has {quoted_list(list(filled))}")
    _require_values(file, data, workbook[name])
    cells = filled[name]
    first_row = min(row for row, _ in cells)
    for merged in workbook[name].merged_cells.ranges:
        if merged.max_row >= first_row:
            raise ValueError(
                f"{file}: the cells {merged.coord} of sheet {quoted(name)} are merged; unmerge them and write the "
                "value into each"
            )
    columns = range(min(column for _, column in cells), max(column for _, column in cells) + 1)
    rows = sorted({row for row, _ in cells})
    return [Record(row, [cells.get((row, column), "") for column in columns]) for row in rows]


def _texts(sheet: Any) -> dict[tuple[int, int], str]:
    """Return the cells of a sheet that are not blank, by row and column.

    The sheet's own methods would make a cell at every place up to a stray one.
    """
    texts = {place: _text(cell.value) for place, cell in sheet._cells.items()}
    return {place: text for place, text in texts.items() if text.strip()}


def _text(value: Any) -> str:
    return unescape(value) if isinstance(value, str) else cell_text(value)


def _require_values(file: Path, data: bytes, sheet: Any) -> None:
    """Raise ValueError if a formula was never calculated; one whose result is an empty text has its type."""
    empty = [place for place, cell in sheet._cells.items() if cell.value is None and cell.data_type == "n"]
    if not empty:
        return
    formulas = _load(file, data, data_only=False)[sheet.title]
    for origin in (formulas._cells[place] for place in empty):
        if origin.data_type == "f":
            raise ValueError(
                f"{file}: the formula in cell {origin.coordinate} of sheet {quoted(sheet.title)} has no value; open "
                "the workbook in a spreadsheet program and save it"
            )


def _load(file: Path, data: bytes, data_only: bool) -> Any:
    """Return the workbook, with the values of formulas or with the formulas."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles and extensions, which no cell depends on
            return load_workbook(io.BytesIO(data), data_only=data_only)
    except Exception as error:  # whatever a damaged part makes of openpyxl
        raise ValueError(f"{file} is no Excel workbook that can be read ({error}); save it again") from None
