"""Normalize the texts of candidate ideas and drop duplicates."""

import re
from collections.abc import Iterable

_PLAIN_QUOTES = str.maketrans("‘’‚“”„«»", '\'\'\'"""""')
_WRAPPERS = ("**", "__", "*", "_", '"', "'", "`")
_TRAILING = " .,;:!…"
# Matches "3.", "(3)", "#3:", "-" and "*", but not the start of "3.5 times", "-1", "*args" or "100. trees".
_ENUMERATION = re.compile(r"(?:[-*–—]\s+|[•◦‣·]\s*|\(?#?\d{1,2}[.):](?!\d)\s*)")


def normalize(text: str) -> str:
    """Return an idea as one plain sentence, empty if nothing is left.

    Collapses white space, straightens quotes, removes numbering, bullets, quotes and emphasis around the whole text,
    and ends it with a full stop or a question mark.
    """
    core, before = " ".join(text.translate(_PLAIN_QUOTES).split()), None
    while core != before:
        before = core
        core = core.rstrip(_TRAILING)
        for mark in _WRAPPERS:
            inside = core[len(mark) : -len(mark)]
            if core == f"{mark}{inside}{mark}" and inside and mark not in inside:
                core = inside.strip()
        core = _ENUMERATION.sub("", core, count=1) if _ENUMERATION.match(core) else core
    return core if not core or core.endswith("?") else f"{core}."


def distinct_ideas(texts: Iterable[str]) -> list[str]:
    """Return the normalized ideas among `texts`, each once.

    Texts that differ in case or final punctuation are one idea, of which the first spelling stays. A text without
    letters is not an idea.
    """
    ideas: dict[str, str] = {}
    for text in map(normalize, texts):
        if any(letter.isalpha() for letter in text):
            ideas.setdefault(text.rstrip(" .?").casefold(), text)
    return list(ideas.values())
