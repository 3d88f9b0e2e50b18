"""The wordings of the scripted expert: the meaning of a response, and the sentences that express it.

A response can be reworded from its meaning. The action and its arguments stay the same, except that an edit's
instruction asks for the same recipes in other words. So a trajectory can be rendered in several wordings with the same
feedback, without running its scripts again.
"""

import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from rollout.scripted.recipes import RECIPES
from tasks.action import ACTIONS, EDIT, Action
from tasks.feedback import status_line
from tasks.response import FACT_CHECK, REFLECTION, STATUS, THOUGHT, format_response

# Situation after the last feedback -> reflections.
REFLECTIONS: Mapping[str, tuple[str, ...]] = {
    "start": ("Nothing is tried.", "This is the start.", "No edit yet."),
    "looked": ("I know more now.", "Now I know more.", "I see."),
    "better": ("The edit helped.", "It helped.", "This is better."),
    "worse": ("The edit did not help.", "It did not help.", "This is not better."),
    "crashed": ("The script crashed.", "It crashed.", "The edit crashed."),
    "stopped": ("The script is too slow.", "It is too slow.", "The edit is too slow."),
    "refused": ("No edit was made.", "The edit was not made.", "Nothing was edited."),
    "copied": ("The copy is made.", "It is copied.", "I have a copy now."),
}
# Situation -> fact checks; {last} and {last_score} are the last script that ran and the score it printed.
FACTS: Mapping[str, tuple[str, ...]] = {
    "start": ("Only {best} is known.", "{best} is the first script.", "I know {best} only."),
    "looked": ("{best} is still the best.", "The best is still {best}.", "{best} stays the best."),
    "better": ("{last} printed {last_score}.", "{last} got {last_score}.", "{last} has {last_score}."),
    "worse": ("{last} printed {last_score}.", "{last} got {last_score}.", "{last} has {last_score}."),
    "crashed": ("{last} printed no score.", "{last} got no score.", "{last} has no score."),
    "stopped": ("{last} printed no score.", "{last} got no score.", "{last} has no score."),
    "refused": ("{best} is still the best.", "The best is still {best}.", "{best} stays the best."),
    "copied": ("{best} is still the best.", "The best is still {best}.", "{best} stays the best."),
}
# Intent -> thoughts; {target} is the file of the action. The intent comes last, next to the action itself.
THOUGHTS: Mapping[str, tuple[str, ...]] = {
    "edit": ("With {target} I try an edit.", "I give {target} an edit.", "To {target} I make an edit."),
    "return": ("Back to {target} for an edit.", "I go back to {target} for an edit.", "I give {target} another edit."),
    "inspect": ("In {target} I read lines.", "Of {target} I read the first lines.", "I open {target} and read lines."),
    "understand": ("For {target} I ask questions.", "About {target} I ask a question.", "I take {target} and ask."),
    "list": ("First I list the files.", "I want a list of files.", "I look at all files."),
    "copy": ("Of {target} I keep a copy.", "I make {target} a copy.", "I want {target} as a copy."),
    "run": ("I give {target} a run.", "For {target} I want a run.", "Next {target} gets a run."),
    "final": ("With {target} I stop.", "I take {target} and stop.", "I have {target} and stop."),
}


@dataclass(frozen=True)
class Meaning:
    """The meaning of one response of the expert.

    Attributes:
        situation: A key of `REFLECTIONS`.
        intent: A key of `THOUGHTS`.
        best: The best script so far, from the status line.
        best_score: Its score, as text.
        last: The last script that ran, `` if there is none.
        last_score: The score that it printed, as text.
        target: The file of the action.
        action: The name of the action.
        arguments: The arguments of the action, without the instruction of an edit.
        recipes: The recipes that the instruction of an edit asks for.
    """

    situation: str
    intent: str
    best: str
    best_score: str
    last: str
    last_score: str
    target: str
    action: str
    arguments: dict[str, str]
    recipes: list[str] = field(default_factory=list)


def instruction_text(recipes: list[str], rng: random.Random) -> str:
    """Return a sentence that asks for `recipes`."""
    first, *more = (rng.choice(RECIPES[name].phrasings) for name in recipes)
    for sentence in more:
        first = f"{first.removesuffix('.')} and {sentence[0].lower()}{sentence[1:]}"
    return first


def word(meaning: Meaning, rng: random.Random) -> str:
    """Return a response with the meaning `meaning`."""
    slots = {key: str(value) for key, value in asdict(meaning).items()}
    thoughts = {
        REFLECTION: rng.choice(REFLECTIONS[meaning.situation]),
        STATUS: f"{status_line(meaning.best, float(meaning.best_score))}.",
        FACT_CHECK: rng.choice(FACTS[meaning.situation]).format(**slots),
        THOUGHT: rng.choice(THOUGHTS[meaning.intent]).format(**slots),
    }
    arguments = dict(meaning.arguments)
    if meaning.action == EDIT:
        arguments["edit_instruction"] = instruction_text(meaning.recipes, rng)
    ordered = {key: arguments[key] for key in ACTIONS[meaning.action].arguments}
    return format_response(thoughts, Action(meaning.action, ordered))


def to_json(meaning: Meaning) -> str:
    """Return `meaning` as it is stored with a response; the inverse of `from_json`."""
    return json.dumps(asdict(meaning), ensure_ascii=False)


def from_json(wording: str) -> Meaning:
    """Return the meaning stored as `wording`. Raises ValueError if it is not a meaning."""
    try:
        return Meaning(**json.loads(wording))
    except TypeError as error:
        raise ValueError(f"not the meaning of a response: {wording[:80]!r} ({error}); collect again") from error


def reword_response(wording: str, rng: random.Random) -> str:
    """Return another response of the same meaning, with the same action, arguments and recipes."""
    return word(from_json(wording), rng)
