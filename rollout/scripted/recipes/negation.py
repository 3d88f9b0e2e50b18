"""Negations in instructions: `do not bag`, `instead of a random forest`, `neither one nor the other`.

Texts are in lower case, with a blank between words and a line break between lines.
"""

import re

from rollout.scripted.recipes.recipe import REMOVING

# Negates the rest of its clause, up to a word of END.
FORBID = "(?:do|must|should) not|(?:do|must|should)n['’]?t|never"
END = (
    "forget|hesitate|neglect|afraid|only|just|and|but|or|nor|so|then|yet|hence|because|since|if|when|unless|until|"
    "instead|except|other than|in favou?r"
)
CLAUSE = re.compile(rf"\b(?:{FORBID})(?: (?!(?:{END})\b|[-–—] )[^ \n.,:;!?()]+)* $")
# Negates what follows after at most four words of SMALL.
NOT = (
    f"not|cannot|\\w+n['’]t|neither|stop(?:ping)?|avoid(?:ing)?|{REMOVING}|turn(?:ing)? off|disabl(?:e|ing)|instead of|"
    "rather than|in place of"
)
ARTICLES = "a|an|the|any|all|it|its|this|that|of"
SMALL = (
    f"{ARTICLES}|model|to|with|on|by|for|into|be|do|doing|need|have|having|use|using|apply|applying|add|adding|try|"
    "trying|train|training|fit|fitting|make|making|step|change|switch"
)
# Negates what follows directly.
LESS = "replac(?:e|ing)|(?:switch|change|move)(?: the model)? from|(?:reduc|decreas)(?:e|ing)|lower(?:ing)?|fewer|less"
NEAR = re.compile(rf"\b(?:(?:{NOT})(?: (?:{SMALL})){{0,4}}|(?:{LESS})(?: (?:a|an|the|number of)){{0,2}}) $")
# Text between two things of which the second is part of the first, or both are in one list.
ALIKE = re.compile(rf"(?:[^\n.:;!?()]* (?:or|nor))? (?:(?:{ARTICLES}) )*")
LISTED = re.compile(rf", (?:(?:{ARTICLES}) )*")  # the list continues after the second
MORE = re.compile(r"[^\n.:;!?()]*? (?:or|nor) ")


def is_negated(before: str) -> bool:
    """Return whether the text before something negates it; a double negation such as `never without` does not."""
    near = NEAR.search(before)
    if near is None:
        return CLAUSE.search(before) is not None
    return CLAUSE.search(before[: near.start()]) is None


def shares_negation(between: str, rest: str) -> bool:
    """Return whether the negation of one thing also applies to the next one.

    Args:
        between: The text between them.
        rest: The text after the second.
    """
    if LISTED.fullmatch(between):
        return MORE.match(rest) is not None
    return ALIKE.fullmatch(between) is not None
