"""Write cells that have types as text."""

import datetime
import math
from decimal import Decimal
from typing import Any


def cell_text(value: Any) -> str:
    """Return a cell as text that reads back as the same value; empty if it is missing.

    Dates and times are written as in ISO 8601, a midnight as its date, and durations in seconds.
    """
    if value is None or isinstance(value, float) and math.isnan(value):
        return ""
    if isinstance(value, datetime.timedelta):
        return seconds_text(value // datetime.timedelta(microseconds=1), 6)
    if isinstance(value, datetime.datetime) and value.time() == datetime.time.min and value.tzinfo is None:
        value = value.date()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def seconds_text(count: int, digits: int) -> str:
    """Return a number of units of 10^-digits seconds as exact seconds, without zeros at the end."""
    text = format(Decimal(count).scaleb(-digits), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
