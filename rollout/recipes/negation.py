"""Instructions that turn something down: `do not bag`, `instead of a random forest`, `neither one nor the other`."""

import re

# Turns down the whole clause behind it.
FORBID = "(?:do|must|should) not|(?:do|must|should)n['’]?t|never"
END = "forget|hesitate|only|just|and|but|so|then|because|since|if|when|unless|until|instead|or|nor"
# Turns down what follows behind nothing but small words.
NOT = (
    "not|cannot|\\w+n['’]t|no|neither|without|stop(?:ping)?|avoid(?:ing)?|skip(?:ping)?|undo(?:ing)?|remov(?:e|ing)|"
    "delet(?:e|ing)|drop(?:ping)?|leav(?:e|ing) out|get rid of|turn off|disabl(?:e|ing)|instead of|rather than|"
    "in place of"
)
SMALL = (
    "a|an|the|any|all|it|its|this|that|model|to|with|on|by|of|for|into|be|do|doing|need|have|having|use|using|apply|"
    "applying|add|adding|try|trying|train|training|fit|fitting|make|making|step|change|switch"
)
# Turns down what follows at once.
LESS = "replac(?:e|ing)|(?:switch|change|move)(?: the model)? from|(?:reduc|decreas)(?:e|ing)|lower(?:ing)?|fewer|less"
TURNED_DOWN = re.compile(
    rf"\b(?:(?:{FORBID})(?: (?!(?:{END})\b)[^ .,:;!?]+)*|(?:{NOT})(?: (?:{SMALL})){{0,4}}"
    rf"|(?:{LESS})(?: (?:a|an|the|number of)){{0,2}}) $"
)
ALIKE = re.compile(rf",? (?:or|nor) (?:(?:{SMALL}) ){{0,4}}")


def is_turned_down(before: str) -> bool:
    """Returns whether the words before something, in lower case and with single spaces, say that it is not wanted."""
    return TURNED_DOWN.search(before) is not None


def is_alike(between: str) -> bool:
    """Returns whether the words between two things make the second share the first one's being turned down."""
    return ALIKE.fullmatch(between) is not None
