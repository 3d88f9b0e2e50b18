"""Instructions that turn something down: `do not bag`, `instead of a random forest`, `neither one nor the other`.

Texts are in lower case, with a blank between words and a line break between lines.
"""

import re

from rollout.scripted.recipes.recipe import REMOVING

# Turns down the whole clause behind it, as far as none of these words begins another thought.
FORBID = "(?:do|must|should) not|(?:do|must|should)n['’]?t|never"
END = (
    "forget|hesitate|neglect|afraid|only|just|and|but|or|nor|so|then|yet|hence|because|since|if|when|unless|until|"
    "instead|except|other than|in favou?r"
)
CLAUSE = re.compile(rf"\b(?:{FORBID})(?: (?!(?:{END})\b|[-–—] )[^ \n.,:;!?()]+)* $")
# Turns down what follows behind nothing but small words.
NOT = (
    f"not|cannot|\\w+n['’]t|neither|stop(?:ping)?|avoid(?:ing)?|{REMOVING}|turn(?:ing)? off|disabl(?:e|ing)|instead of|"
    "rather than|in place of"
)
ARTICLES = "a|an|the|any|all|it|its|this|that|of"
SMALL = (
    f"{ARTICLES}|model|to|with|on|by|for|into|be|do|doing|need|have|having|use|using|apply|applying|add|adding|try|"
    "trying|train|training|fit|fitting|make|making|step|change|switch"
)
# Turns down what follows at once.
LESS = "replac(?:e|ing)|(?:switch|change|move)(?: the model)? from|(?:reduc|decreas)(?:e|ing)|lower(?:ing)?|fewer|less"
NEAR = re.compile(rf"\b(?:(?:{NOT})(?: (?:{SMALL})){{0,4}}|(?:{LESS})(?: (?:a|an|the|number of)){{0,2}}) $")
# Between two things: the second is part of the first, or the last of a list of which the first is one.
ALIKE = re.compile(rf"(?:[^\n.:;!?()]* (?:or|nor))? (?:(?:{ARTICLES}) )*")
LISTED = re.compile(rf", (?:(?:{ARTICLES}) )*")  # with more of the list behind the second
MORE = re.compile(r"[^\n.:;!?()]*? (?:or|nor) ")


def is_turned_down(before: str) -> bool:
    """Return whether the words before something say that it is not wanted; `never without` it says that it is."""
    near = NEAR.search(before)
    if near is None:
        return CLAUSE.search(before) is not None
    return CLAUSE.search(before[: near.start()]) is None


def is_alike(between: str, rest: str) -> bool:
    """Return whether of two things the second shares the first one's being turned down.

    Args:
        between: the words between them.
        rest: what stands behind the second.
    """
    if LISTED.fullmatch(between):
        return MORE.match(rest) is not None
    return ALIKE.fullmatch(between) is not None
