"""Edits of a script as search/replace blocks: the lines to be replaced, and the lines that replace them.

The notation is that of aider and of merge conflicts:

    <<<<<<< SEARCH
    lines of the script
    =======
    lines that replace them
    >>>>>>> REPLACE
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rollout.endpoint.code_blocks import without_fence

SEARCH, DIVIDER, REPLACE = "<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE"
# Models miscount the signs, and add a colon or a sign after the word.
OPENS = re.compile(r"\s*<{5,9}\s*SEARCH\W*", re.IGNORECASE)
DIVIDES = re.compile(r"\s*={5,9}\s*")
CLOSES = re.compile(r"\s*>{5,9}\s*REPLACE\W*", re.IGNORECASE)


class CannotApply(ValueError):
    """An answer that is no edit of the script; the message names the part that does not fit."""


@dataclass(frozen=True)
class EditBlock:
    """One replacement.

    Attributes:
        search: The lines to be replaced, without line ends.
        replace: The lines that replace them.
    """

    search: tuple[str, ...]
    replace: tuple[str, ...]


def has_blocks(answer: str) -> bool:
    """Return whether an answer contains the beginning of a search/replace block."""
    return any(OPENS.fullmatch(line) for line in _lines(answer))


def parse_blocks(answer: str) -> list[EditBlock]:
    """Return the blocks of an answer, without repetitions; text and fences around them are ignored.

    Raises:
        CannotApply: If a block does not end.
    """
    blocks: list[EditBlock] = []
    search: list[str] | None = None
    replace: list[str] | None = None
    for line in _lines(answer):
        if search is None:
            search = [] if OPENS.fullmatch(line) else None
        elif replace is None:
            if DIVIDES.fullmatch(line):
                replace = []
            elif OPENS.fullmatch(line) or CLOSES.fullmatch(line):
                raise CannotApply(f"block {len(blocks) + 1} has no line {DIVIDER}")
            else:
                search.append(line)
        elif CLOSES.fullmatch(line):
            blocks.append(EditBlock(tuple(without_fence(search)), tuple(without_fence(replace))))
            search = replace = None
        elif OPENS.fullmatch(line):
            break
        else:
            replace.append(line)
    if search is not None:
        missing = DIVIDER if replace is None else REPLACE
        raise CannotApply(f"block {len(blocks) + 1} has no line {missing}")
    return list(dict.fromkeys(blocks))


def apply_blocks(source: str, blocks: Sequence[EditBlock]) -> str:
    """Return a script in which the lines that each block searches are replaced.

    All blocks are matched against `source`. A block matches lines that are equal, else lines that are equal without
    trailing white space, else lines that differ in indentation by the same amount; then its replacement is indented
    alike. An empty search fits only an empty script. Line ends are those of `source`.

    Raises:
        CannotApply: If the lines of a block occur nowhere or more than once, or two blocks overlap; names the block.
    """
    end = "\r" if "\r\n" in source else ""
    lines = source.split("\n")
    found: list[tuple[int, int, Sequence[str]]] = []
    for number, block in enumerate(blocks, 1):
        found.append(_find([line.removesuffix("\r") for line in lines], block, number, len(blocks)))
    found.sort(key=lambda each: each[:2])
    for (_, stop, _), (start, _, _) in zip(found, found[1:], strict=False):
        if start < stop:
            raise CannotApply("two blocks replace the same line; use one block for both")
    for start, stop, replacement in reversed(found):
        lines[start:stop] = [f"{line}{end}" for line in replacement]
    return "\n".join(lines).removesuffix("\r")


def _find(lines: Sequence[str], block: EditBlock, number: int, num_blocks: int) -> tuple[int, int, Sequence[str]]:
    """Return the first and the last + 1 line that a block replaces, and its replacement."""
    name = "the block" if num_blocks == 1 else f"block {number}"
    if not any(line.strip() for line in block.search):
        if any(line.strip() for line in lines):
            raise CannotApply(f"{name} has no line to search for; repeat a line of the script, and add to it")
        return 0, len(lines), (*block.replace, "")
    outer, inner = _trimmed(block.search), _trimmed(block.replace)
    for search, replace, match in (
        (block.search, block.replace, _equal),
        (outer, inner, _equal_stripped),
        (outer, inner, _equal_indented),
    ):
        places = [i for i in range(len(lines) - len(search) + 1) if match(lines[i : i + len(search)], search)]
        if len(places) > 1:
            raise CannotApply(
                f"{name}, which searches for {_shown(search)}, fits {len(places)} places of the script; "
                "repeat more lines around it"
            )
        if places:
            return places[0], places[0] + len(search), _reindented(lines[places[0]], search[0], replace)
    raise CannotApply(f"{name} searches for {_shown(block.search)}, which is not in the script; copy its lines exactly")


def _equal(lines: Sequence[str], search: Sequence[str]) -> bool:
    return tuple(lines) == tuple(search)


def _equal_stripped(lines: Sequence[str], search: Sequence[str]) -> bool:
    return all(line.rstrip() == other.rstrip() for line, other in zip(lines, search, strict=True))


def _equal_indented(lines: Sequence[str], search: Sequence[str]) -> bool:
    if any(line.strip() != other.strip() for line, other in zip(lines, search, strict=True)):
        return False
    shifts = {_shift(line, other) for line, other in zip(lines, search, strict=True) if line.strip()}
    return len(shifts) == 1 and None not in shifts


def _shift(line: str, search: str) -> tuple[str, int] | None:
    """Return the white space that a line of the script has more at its beginning than one of a search, or less.

    Returns:
        The additional white space, and the number of characters that are missing; None if neither is the case.
    """
    actual, written = (each[: len(each) - len(each.lstrip())] for each in (line, search))
    if actual.endswith(written):
        return actual.removesuffix(written), 0
    return ("", len(written) - len(actual)) if written.endswith(actual) else None


def _reindented(line: str, search: str, replacement: Sequence[str]) -> Sequence[str]:
    """Return a replacement, moved by the difference of indentation between a line of the script and of the search."""
    shift = _shift(line, search)
    assert shift is not None, "they match"
    added, missing = shift
    moved = []
    for each in replacement:
        indent = len(each) - len(each.lstrip())
        moved.append(f"{added}{each[min(missing, indent) :]}" if each.strip() else each)
    return moved


def _trimmed(lines: Sequence[str]) -> Sequence[str]:
    """Return lines without the empty ones at both ends."""
    text = [i for i, line in enumerate(lines) if line.strip()]
    return lines[text[0] : text[-1] + 1] if text else ()


def _shown(lines: Sequence[str]) -> str:
    first = next(line.strip() for line in lines if line.strip())
    return repr(first[:80])


def _lines(answer: str) -> list[str]:
    return answer.replace("\r\n", "\n").split("\n")
