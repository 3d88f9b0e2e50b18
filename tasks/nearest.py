"""Suggest the closest known name for an unknown one."""

import difflib
from collections.abc import Collection

from tasks.quoting import one_line


def closest(name: str, known: Collection[str], cutoff: float = 0.4) -> str:
    """Return the known name that is most similar to `name`, `` if none reaches the similarity `cutoff`."""
    matches = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return matches[0] if matches else ""


def nearest(name: str, known: Collection[str]) -> str:
    """Return ` (nearest: NAME)` for use in an error message, `` if no known name is similar."""
    found = closest(name, known)
    return f" (nearest: {one_line(found)})" if found else ""
