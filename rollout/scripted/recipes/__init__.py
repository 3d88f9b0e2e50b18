"""Recipes: the edits that the scripted coder can make, and the instructions that ask for them."""

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
from rollout.scripted.recipes.negation import is_negated, shares_negation
from rollout.scripted.recipes.nodes import Cannot
from rollout.scripted.recipes.recipe import Recipe
from rollout.scripted.recipes.script import Script

__all__ = ["RECIPES", "Cannot", "Recipe", "Script", "apply", "recognize"]

TOPICS = (data, columns, images, texts, models, ensembles, learning, training, reverting, mistakes)
RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for topic in TOPICS for recipe in topic.RECIPES}
MAX_RECIPES = 2  # in one instruction
FILE_NAME = re.compile(r"\S+\.(?:py|csv)\b")
PATTERNS = [
    (name, re.compile(rf"\b(?:{keyword})(?![a-z])")) for name, recipe in RECIPES.items() for keyword in recipe.keywords
]


def recognize(instruction: str) -> list[str]:
    """Return the names of at most two recipes that an instruction asks for, in the order of the instruction.

    Recipes are found by keywords. Of overlapping matches the longest counts, so `more trees` is not `trees`. File names
    are ignored: `next_bagging.py` asks for no bagging. Negated matches are ignored too: `not bagging`, `instead of a
    random forest`.
    """
    lines = "\n".join(" ".join(line.split()) for line in FILE_NAME.sub(" ", instruction).lower().splitlines())
    text = lines.replace("\n", " ")
    matches = [(m.start(), m.end(), name) for name, pattern in PATTERNS for m in pattern.finditer(text)]
    matches.sort(key=lambda match: (match[0] - match[1], match[0]))  # longest first
    kept: list[tuple[int, int, str]] = []
    for start, end, name in matches:
        if all(end <= other[0] or start >= other[1] for other in kept):
            kept.append((start, end, name))
    wanted: list[str] = []
    last = len(text)  # end of the previous match if that one is negated
    for start, end, name in sorted(kept):
        if is_negated(lines[:start]) or shares_negation(lines[last:start], lines[end:]):
            last = end
        else:
            wanted.append(name)
            last = len(text)
    return list(dict.fromkeys(wanted))[:MAX_RECIPES]


def apply(source: str, names: list[str]) -> str:
    """Return the script after the recipes `names`, in order.

    Raises:
        Cannot: If one of them does not fit the script; the message says why.
    """
    script = Script(source)
    for name in names:
        RECIPES[name].edit(script)
    return script.source()
