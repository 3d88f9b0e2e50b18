"""What the environment answers to an action, and how its texts are worded."""

import re
from dataclasses import dataclass
from enum import StrEnum

NUMBER = r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?"
SCORE_LINE = re.compile(rf"^validation [\w ]+: ({NUMBER}|nan|-?inf)\s*$", re.MULTILINE)


class Outcome(StrEnum):
    """What became of one response; the reward is a function of it (`tasks.reward`)."""

    INVALID = "invalid"  # not an action: a field, the action's name, the JSON or its keys are wrong
    ERROR = "error"  # an action that failed: a missing file, a crash, no submission, nothing changed
    NON_EDIT = "non_edit"  # a valid action that edits nothing
    CORNER = "corner"  # an edit or run that hit a limit: time, memory, disk
    EDIT = "edit"  # an edit whose script ran and gave a valid submission
    INFRASTRUCTURE = "infrastructure"  # our fault: never rewarded, never shown


@dataclass(frozen=True)
class Feedback:
    """The environment's answer to one response.

    Attributes:
        outcome: the class of the answer.
        text: what the agent reads. Never holds the hidden score.
        metric: hidden-label score of the submission this step's run left, if one ran and it was valid.
        validation: the score that the script printed about itself, if it printed one.
    """

    outcome: Outcome
    text: str
    metric: float | None = None
    validation: float | None = None


def validation_score(output: str) -> float | None:
    """Return the last score a script printed as `validation <metric>: <number>`, or None."""
    found = SCORE_LINE.findall(output)
    return float(found[-1]) if found else None


def score_text(score: float) -> str:
    """Return a score as it stands in every text the agent reads, with four decimals."""
    return f"{score:.4f}"


def status_line(best_script: str, best_score: float) -> str:
    """Return the line that closes a feedback: the best script so far by its own validation score."""
    return f"Best so far: {best_script} {score_text(best_score)}"


def invalid_text(reason: str) -> str:
    """Return the feedback to a response that is not an action."""
    return f"Invalid response: {reason}."


def error_text(reason: str) -> str:
    """Return the feedback to an action that failed."""
    return f"Error: {reason}"


def shorten(text: str, limit: int) -> str:
    """Return `text` with its middle cut out, saying how much, where it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    head = limit // 3
    tail = limit - head
    return f"{text[:head]}\n[{len(text) - limit} characters cut]\n{text[-tail:]}"
