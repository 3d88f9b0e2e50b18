"""Recognize numbers in cells, and find a table's decimal mark."""

import math
import re
from collections.abc import Mapping, Sequence

from tasks.quoting import quoted

NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
INFINITE = re.compile(r"[+-]?inf(?:inity)?", re.IGNORECASE)
WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(?:[.,]\d{3})+", re.ASCII)  # 1,234 or 1.234.567
CURRENCY = r"(?:[$€£¥₹₽]|USD|EUR|GBP|JPY|CHF|CAD|AUD|CNY|INR|Rs\.?)"
# Digits in groups of three or, in India, of two before the last three.
GROUPS = r"\d{1,3}(?P<group>[.,'’_ \xa0\u2009\u202f])(?:\d{2,3}(?P=group))*\d{3}(?:[.,]\d*)?"
DIGITS = rf"(?:{GROUPS}|\d+(?:[.,]\d*)?|[.,]\d+)"
# A number that is formatted for people: with a currency, groups of digits, another decimal mark, a percent sign, the
# quotes of a spreadsheet, a mark of a footnote.
FORMATTED = re.compile(
    rf"(?:=?[\"'’]|[~≈])?\(?\s*[+\-\u2212]?\s*{CURRENCY}?\s*[+\-\u2212]?\s*{DIGITS}\s*(?:[%‰]|{CURRENCY}|[kKM])?\s*\)?[\"'’°*†‡]?-?"
)
WITH_UNIT = re.compile(r"[+-]?\d+(?:[.,]\d+)?\s*(?P<unit>[^\W\d_][^\d]{0,9}\d?)")
# Texts that stand for a missing value among numbers, in lower case.
MARKERS = frozenset(
    "na n/a n.a. n.a #n/a #na <na> nan -nan null none nil ? ?? - -- --- . .. ... * \u2013 \u2014 missing "
    "nat 1.#ind -1.#ind 1.#qnan -1.#qnan #div/0! #value! #ref! #name? #num! #null!".split()
)
LARGEST_EXACT = 2**53  # up to here, every whole number is a floating-point number
DECIMALS = (".", ",")


def plain_number(cell: str, decimal: str) -> str | None:
    """Return a cell that is a finite number with a decimal point and without white space, None for any other cell."""
    text = cell.strip()
    if decimal == ",":
        if "." in text:
            return None
        text = text.replace(",", ".")
    return text if NUMBER.fullmatch(text) and math.isfinite(float(text)) else None


def is_number(cell: str, decimal: str) -> bool:
    """Return whether a cell is a finite number."""
    return plain_number(cell, decimal) is not None


def is_number_with_any_mark(cell: str) -> bool:
    """Return whether a cell is a finite number with a decimal point or a decimal comma."""
    return any(is_number(cell, decimal) for decimal in DECIMALS)


def is_infinite(cell: str) -> bool:
    """Return whether a cell is an infinite number, or one too large for a floating-point number."""
    text = cell.strip().replace(",", ".")
    return bool(INFINITE.fullmatch(text) or NUMBER.fullmatch(text) and math.isinf(float(text)))


def is_formatted(cell: str) -> bool:
    """Return whether a cell is a number that is formatted for people, such as $1,234 or 16%."""
    return bool(FORMATTED.fullmatch(cell.strip()))


def unit_of(cell: str) -> str | None:
    """Return what follows the number in a cell such as 138 m2, None for any other cell."""
    match = WITH_UNIT.fullmatch(cell.strip())
    return match["unit"] if match else None


def is_marker(cell: str) -> bool:
    """Return whether a cell stands for a missing value if it is among numbers."""
    return cell.strip().lower() in MARKERS


def are_codes(numbers: Sequence[str]) -> bool:
    """Return whether numbers are codes such as 00123 or an account number, whose digits a calculation would lose."""
    if not all(WHOLE.fullmatch(number) for number in numbers):
        return False
    digits = [number.lstrip("+-") for number in numbers]
    return any(len(text) > 1 and text[0] == "0" or len(text) > 15 and int(text) > LARGEST_EXACT for text in digits)


def decimal_mark(columns: Mapping[str, Sequence[str]], places: Sequence[str], separator: str) -> str:
    """Return the decimal mark of a table, a point unless numbers have a decimal comma.

    Args:
        columns: The cells of each column that may hold numbers.
        places: The place of each row.
        separator: The separator of the columns.

    Raises:
        ValueError: If marks differ between columns, or a mark may as well separate thousands. The message names a cell.
    """
    commas = _marked_cells(columns, ",")
    points = _marked_cells(columns, ".") if commas or separator == ";" else []
    only_groups = all(GROUPED.fullmatch(cell.strip()) for *_, cell in commas or points)
    if not commas and not (points and only_groups):
        return "."
    name, row, cell = (commas or points)[0]
    held = f"column {quoted(name)} holds {quoted(cell)} in {places[row]}"
    if commas and points:
        other, other_row, other_cell = points[0]
        raise ValueError(
            f"{held}, but column {quoted(other)} holds {quoted(other_cell)} in {places[other_row]}; write all numbers "
            "with one decimal mark and no thousands separator, or state the mark with --decimal and the columns that "
            "are no numbers with --words"
        )
    if only_groups:
        mark = "," if commas else "."
        raise ValueError(
            f"{held}, whose {'comma' if commas else 'point'} may be a decimal mark or a thousands separator; state "
            f"--decimal {mark} if it is the decimal mark, or remove the thousands separators"
        )
    return ","


def _marked_cells(columns: Mapping[str, Sequence[str]], mark: str) -> list[tuple[str, int, str]]:
    """Return the column, row and text of each cell that is a number with this decimal mark.

    Columns are ignored if fewer than half of their cells are numbers written with it.
    """
    found = []
    for name, cells in columns.items():
        if any(mark in cell for cell in cells):
            kinds = {cell: is_number(cell, mark) for cell in set(cells)}
            filled = sum(bool(cell) and not is_marker(cell) for cell in cells)
            if 2 * sum(kinds[cell] for cell in cells) >= filled:
                found += [(name, row, cell) for row, cell in enumerate(cells) if mark in cell and kinds[cell]]
    return found
