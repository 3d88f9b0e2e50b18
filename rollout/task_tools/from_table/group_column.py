"""Check the column that a user states as the group, and write each group in one spelling."""

from collections import Counter
from collections.abc import Sequence

from tasks.quoting import quoted
from tasks.split import group_key


def one_spelling(name: str, cells: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the cells with each group in its first spelling, and lines for the user.

    Raises ValueError if no two rows are of one group, so that the column groups nothing.
    """
    keys = {cell: group_key(cell) for cell in dict.fromkeys(cells)}
    first: dict[str, str] = {}
    for cell, key in keys.items():
        first.setdefault(key, cell)
    written = [first[keys[cell]] for cell in cells]
    sizes = Counter(filter(None, written))
    if max(sizes.values(), default=0) < 2:
        raise ValueError(f"no two rows have the same {quoted(name)}, so it is no group; leave --group out")
    lines = []
    if num_other := sum(cell != one for cell, one in zip(cells, written, strict=True)):
        other, one = next((cell, one) for cell, one in zip(cells, written, strict=True) if cell != one)
        lines.append(
            f"{num_other} cells of the group {quoted(name)} are another spelling of a group and are written like its "
            f"first, such as {quoted(other)} as {quoted(one)}"
        )
    if num_without := written.count(""):
        lines.append(f"{num_without} rows have no {quoted(name)}; each of them is a group of its own")
    return written, lines
