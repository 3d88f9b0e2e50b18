r"""Write the grammar of an exact response, for servers that constrain what a model generates.

The grammar is generated from the fields of a response and the table of actions, in the EBNF that llama.cpp calls GBNF
and that both backends of vLLM, llguidance and xgrammar, accept. It generates only responses that are exact: four fields
of one line each, the name of an action, and a JSON object with its keys in their order. It generates whatever
`tasks.response.format_response` writes of texts within the bounds.
"""

import json
import math
from dataclasses import dataclass
from typing import Self

from tasks.action import SPECS, ActionSpec, Kind
from tasks.response import ACTION, ACTION_INPUT, FIELDS

# Low enough that few responses are cut: those of Qwen2.5-Coder at temperature 1 have 4 to 5, other scripts 1.5 to 2.
CHARACTERS_PER_TOKEN = 2.5
FILE_CHARACTERS = 64
NUMBER_DIGITS = 9  # as in `tasks.action.check_arguments`
MIN_CHARACTERS = 40  # of a thought or text that says something
END_TOKENS = 1  # the token that ends a response


@dataclass(frozen=True)
class Bounds:
    """The maximum lengths of the free parts of a response, in characters.

    Attributes:
        thought: The text of each of the four fields before the action.
        text: An argument of kind `text`.
    """

    thought: int
    text: int

    @classmethod
    def within(cls, max_tokens: int) -> Self:
        """Return the bounds of responses that fit `max_tokens` tokens, their end token included.

        Labels, names and keys are subtracted first. One half of the rest is for the four thoughts, the other for the
        arguments of one action.

        Raises:
            ValueError: If that leaves too little room to say something.
        """
        num_files = max(sum(kind in ("file", "folder") for kind in spec.arguments.values()) for spec in SPECS)
        fixed = max(map(_fixed_characters, SPECS))
        free = int(CHARACTERS_PER_TOKEN * (max_tokens - END_TOKENS)) - fixed
        bounds = cls(thought=free // 8, text=free // 2 - num_files * FILE_CHARACTERS)
        if min(bounds.thought, bounds.text) < MIN_CHARACTERS:
            least = fixed + max(8 * MIN_CHARACTERS, 2 * (MIN_CHARACTERS + num_files * FILE_CHARACTERS))
            raise ValueError(
                f"{max_tokens} tokens are too few for a constrained response; expected at least "
                f"{math.ceil(least / CHARACTERS_PER_TOKEN) + END_TOKENS}"
            )
        return bounds


def response_grammar(max_tokens: int) -> str:
    """Return the grammar of all exact responses that fit `max_tokens` tokens, in EBNF with the start rule `root`.

    Raises:
        ValueError: If `max_tokens` is too small.
    """
    bounds = Bounds.within(max_tokens)
    thoughts = " ".join(f'{_literal(f"{label}: ")} thought "\\n"' for label in FIELDS[:4])
    actions = " | ".join(map(_action_rule, SPECS))  # on one line, which llguidance requires
    # A character of a JSON string is one that `json.dumps` leaves as it is, a short escape, or an escape below U+0020.
    return rf"""root ::= {thoughts} {_literal(f"{ACTION}: ")} action
action ::= {actions}
thought ::= [^\n\r]{{1,{bounds.thought}}}
file ::= "\"" character{{1,{FILE_CHARACTERS}}} "\""
folder ::= file
text ::= "\"" character{{0,{bounds.text}}} "\""
number ::= "0" | [1-9] [0-9]{{0,{NUMBER_DIGITS - 1}}}
character ::= [^"\\\x00-\x1f] | "\\" ["\\/bfnrt] | "\\u00" [01] [0-9a-f]
"""


def _fixed_characters(spec: ActionSpec) -> int:
    """Return the number of characters of a response that are always the same, numbers included."""
    numbers = sum(kind == "number" for kind in spec.arguments.values())
    labels = sum(len(f"{label}: \n") for label in FIELDS)
    return labels + sum(map(len, _action_parts(spec))) + NUMBER_DIGITS * numbers


def _action_rule(spec: ActionSpec) -> str:
    first, *rest = _action_parts(spec)
    kinds: list[Kind] = list(spec.arguments.values())
    return " ".join([_literal(first), *(f"{kind} {_literal(part)}" for kind, part in zip(kinds, rest, strict=True))])


def _action_parts(spec: ActionSpec) -> list[str]:
    """Return the texts before, between and after the arguments of an action, its name included."""
    keys = [f"{json.dumps(name)}: " for name in spec.arguments]
    return [f"{spec.name}\n{ACTION_INPUT}: {{{keys[0]}", *(f", {key}" for key in keys[1:]), "}"]


def _literal(text: str) -> str:
    """Return a literal of the grammar; JSON's escapes are a subset of its own."""
    return json.dumps(text)
