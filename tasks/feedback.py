"""Feedback: the environment's answer to an action, and the wording of its fixed texts."""

import re
from dataclasses import dataclass
from enum import StrEnum

NOT_MADE, UNCHANGED = "the edit could not be made", "the edit changed nothing"  # reasons for `Outcome.NOT_EDITED`
SAVED = "Saved "  # the beginning of the feedback on an edit that saved a script
NUMBER = r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?"
# A line begins after a carriage return too, with which a progress bar clears itself.
SCORE_LINE = re.compile(rf"(?:^|(?<=\r))validation [\w ]+: ({NUMBER}|nan|-?inf)\s*$", re.MULTILINE)
STATUS_LINE = re.compile(r"Best so far: (\S+) (-?\d+(?:\.\d+)?)")


class Outcome(StrEnum):
    """The class of one response's result, on which the reward depends (`tasks.reward`)."""

    INVALID = "invalid"  # not an action: a field, the action's name, the JSON or its keys are wrong
    ERROR = "error"  # the action failed: missing file, crash, no submission
    NOT_EDITED = "not_edited"  # an edit that the coder did not make, which need not be the agent's fault
    NON_EDIT = "non_edit"  # a valid action that edits nothing
    CORNER = "corner"  # an edit or run that hit a limit: time, memory, disk
    EDIT = "edit"  # an edit whose script ran and left a valid submission
    INFRASTRUCTURE = "infrastructure"  # a fault of the system, not of the agent: never rewarded, never shown


@dataclass(frozen=True)
class Feedback:
    """The environment's answer to one response.

    Attributes:
        outcome: The class of the result.
        text: The text that the agent reads. It never contains the hidden score.
        metric: The hidden score of the submission that this step's run left; None if it left no valid one.
        validation: The validation score that the script printed, None if it printed none.
    """

    outcome: Outcome
    text: str
    metric: float | None = None
    validation: float | None = None


def validation_score(output: str) -> float | None:
    """Return the last score that a script printed as `validation <metric>: <number>`, None if it printed none."""
    found = SCORE_LINE.findall(output)
    return float(found[-1]) if found else None


def score_text(score: float) -> str:
    """Return a score with four decimals, the form used in every text that the agent reads."""
    return f"{score:.4f}"


def status_line(best_script: str, best_score: float) -> str:
    """Return the last line of every feedback: the best script so far, by its validation score."""
    return f"Best so far: {best_script} {score_text(best_score)}"


def parse_status_line(text: str) -> tuple[str, str] | None:
    """Return script and score, as text, of the first status line in `text`, None if there is none."""
    found = STATUS_LINE.search(text)
    return (found[1], found[2]) if found else None


def invalid_text(reason: str) -> str:
    """Return the feedback on a response that is not an action."""
    return f"Invalid response: {reason}."


def error_text(reason: str) -> str:
    """Return the feedback on an action that failed."""
    return f"Error: {reason}"


def is_not_edited(text: str) -> bool:
    """Return whether `text` is the feedback on an edit that the coder did not make."""
    return text.startswith((error_text(NOT_MADE), error_text(UNCHANGED)))


def shorten(text: str, limit: int) -> str:
    """Return `text`, with its middle replaced by a count of the removed characters if it exceeds `limit` characters.

    A third of the limit is spent on the beginning and the rest on the end.
    """
    if len(text) <= limit:
        return text
    head = limit // 3
    tail = limit - head
    return f"{text[:head]}\n[{len(text) - limit} characters cut]\n{text[-tail:]}"
