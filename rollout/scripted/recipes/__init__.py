"""Recipes: what the offline coder can do to a script, and how an instruction asks for it."""

import re
from collections.abc import Mapping

from rollout.scripted.recipes import (
    columns,
    data,
    ensembles,
    images,
    learning,
    mistakes,
    models,
    reverting,
    texts,
    training,
)
from rollout.scripted.recipes.negation import is_alike, is_turned_down
from rollout.scripted.recipes.nodes import Cannot
from rollout.scripted.recipes.recipe import Recipe
from rollout.scripted.recipes.script import Script

__all__ = ["RECIPES", "Cannot", "Recipe", "Script", "apply", "recognise"]

TOPICS = (data, columns, images, texts, models, ensembles, learning, training, reverting, mistakes)
RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for topic in TOPICS for recipe in topic.RECIPES}
MAX_RECIPES = 2  # of one instruction
FILE_NAME = re.compile(r"\S+\.(?:py|csv)\b")
PATTERNS = [
    (name, re.compile(rf"\b(?:{keyword})(?![a-z])")) for name, recipe in RECIPES.items() for keyword in recipe.keywords
]


def recognise(instruction: str) -> list[str]:
    """Return the names of the recipes an instruction asks for, in the order it names them, at most two.

    Decided by keywords: of overlapping matches the longest counts, so that `more trees` is not `trees`. File names
    in the instruction count for nothing: `next_bagging.py` asks for no bagging. Neither does what the words before it
    turn down: `not bagging`, `instead of a random forest`. No match, no recipe.
    """
    lines = "\n".join(" ".join(line.split()) for line in FILE_NAME.sub(" ", instruction).lower().splitlines())
    text = lines.replace("\n", " ")
    found = [(m.start(), m.end(), name) for name, pattern in PATTERNS for m in pattern.finditer(text)]
    found.sort(key=lambda match: (match[0] - match[1], match[0]))  # longest first
    kept: list[tuple[int, int, str]] = []
    for start, end, name in found:
        if all(end <= other[0] or start >= other[1] for other in kept):
            kept.append((start, end, name))
    wanted: list[str] = []
    last = len(text)  # where the match before ends, if it is turned down
    for start, end, name in sorted(kept):
        if is_turned_down(lines[:start]) or is_alike(lines[last:start], lines[end:]):
            last = end
        else:
            wanted.append(name)
            last = len(text)
    return list(dict.fromkeys(wanted))[:MAX_RECIPES]


def apply(source: str, names: list[str]) -> str:
    """Return the script after the recipes `names`, in order.

    Raises:
        Cannot: where any of them has nothing to change; the text says why.
    """
    script = Script(source)
    for name in names:
        RECIPES[name].edit(script)
    return script.source()
