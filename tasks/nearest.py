"""Of a name that is unknown, the one that was perhaps meant."""

import difflib
from collections.abc import Collection


def nearest(name: str, known: Collection[str]) -> str:
    """Return ` (nearest: NAME)` for the likeliest of the known names, `` where none is like it."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f" (nearest: {near[0]})" if near else ""
