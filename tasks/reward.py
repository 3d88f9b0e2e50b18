"""The ML-specific reward of one action, a function of its outcome (ML-Agent, versions 1 and 2)."""

import math
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from tasks.feedback import Feedback, Outcome
from tasks.task import Task

Version = Literal["v1", "v2"]

PENALTY: dict[Version, float] = {"v1": 0.0, "v2": -1.0}  # for an invalid response or an error
NEUTRAL: dict[Version, float] = {"v1": 0.5, "v2": 0.0}  # for an action that neither fails nor changes a score
STEEPNESS = 100.0  # alpha * (m_best - m_init) in the sigmoid of v1


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True))
class Rules:
    """The rules of the reward. The first switches are the paper's ablations; the rest goes beyond it."""

    version: Version = "v2"
    """Version of the paper's reward: v1 lies between 0 and 1; v2 is -1 for errors and unbounded for edits that ran."""
    performance: Literal["scaled", "binary"] = "scaled"
    """Reward of an edit that ran. scaled: proportional to the score's change; binary: 1 if it improved, else 0."""
    format_penalty: bool = True
    """Whether invalid responses and errors are penalized; false: they count as actions that change nothing."""
    corner_cases: bool = True
    """Whether a script that hits a limit counts as an action that changes nothing; false: it counts as an error."""
    coder_failures: bool = True
    """Whether an edit that the coder does not make counts as an action that changes nothing; false: it counts as an
    error, as in the paper."""
    noise_floor: Annotated[float, Field(ge=0)] = 0.0
    """Score changes up to this many standard deviations of the task's seed noise count as no change."""
    repeats: bool = True
    """Whether an edit whose instruction was given before in the trajectory can earn more than an action that changes
    nothing."""


PAPER = Rules(coder_failures=False)


def reward(task: Task, feedback: Feedback, before: float, rules: Rules = PAPER, repeated: bool = False) -> float:
    """Return the reward of one action.

    Args:
        task: The task, which gives the scale of the scores.
        feedback: The environment's answer to the action.
        before: The state's score m_t.
        rules: The rules of the reward.
        repeated: Whether the action is an edit whose instruction already occurs in the state's turns.

    Raises:
        ValueError: If the outcome is an infrastructure fault, which is never rewarded: retry or drop the action.
    """
    neutral = NEUTRAL[rules.version]
    penalty = PENALTY[rules.version] if rules.format_penalty else neutral
    match feedback.outcome:
        case Outcome.INFRASTRUCTURE:
            raise ValueError("an infrastructure fault has no reward: retry or drop the action")
        case Outcome.INVALID | Outcome.ERROR:
            return penalty
        case Outcome.CORNER:
            return neutral if rules.corner_cases else penalty
        case Outcome.NOT_EDITED:
            return neutral if rules.coder_failures else penalty
        case Outcome.NON_EDIT:
            return neutral
        case Outcome.EDIT:
            assert feedback.metric is not None, "an edit that ran has a metric"
            earned = performance_reward(task, before, feedback.metric, rules)
            return min(earned, neutral) if repeated and not rules.repeats else earned


def performance_reward(task: Task, before: float, after: float, rules: Rules = PAPER) -> float:
    """Return the reward of an edit that moved the score from `before` (m_t) to `after` (m_{t+1}).

    v2: (m_{t+1} - m_t) / (m_best - m_init), unbounded.
    v1: sigmoid(alpha (m_{t+1} - m_t)) with alpha = 100 / (m_best - m_init).
    The denominator has the sign of the metric's direction, so a better score gives a larger reward either way.
    """
    change = after - before
    if abs(change) <= rules.noise_floor * task.noise:
        change = 0.0
    step = change / (task.m_best - task.m_init)
    if rules.performance == "binary":
        return 1.0 if step > 0 else 0.0
    if rules.version == "v2":
        return step
    return 1.0 / (1.0 + math.exp(-min(max(STEEPNESS * step, -700.0), 700.0)))
