"""The ML-specific reward: one number for every outcome of one action (ML-Agent, versions 1 and 2)."""

import math
from typing import Literal

from tasks.feedback import Feedback, Outcome
from tasks.task import Task

Version = Literal["v1", "v2"]

# outcome -> reward, for everything but an edit that ran
FIXED: dict[Version, dict[Outcome, float]] = {
    "v1": {Outcome.INVALID: 0.0, Outcome.ERROR: 0.0, Outcome.NON_EDIT: 0.5, Outcome.CORNER: 0.5},
    "v2": {Outcome.INVALID: -1.0, Outcome.ERROR: -1.0, Outcome.NON_EDIT: 0.0, Outcome.CORNER: 0.0},
}


def performance_reward(task: Task, before: float, after: float, version: Version) -> float:
    """Returns the reward of an edit that took the score from `before` (m_t) to `after` (m_{t+1}).

    v2: (m_{t+1} - m_t) / (m_best - m_init), unbounded.
    v1: sigmoid(alpha (m_{t+1} - m_t)) with alpha = 100 / (m_best - m_init).
    The denominator carries the sign of the metric's direction, so a better score is a larger reward either way.
    """
    step = (after - before) / (task.m_best - task.m_init)
    if version == "v2":
        return step
    return 1.0 / (1.0 + math.exp(-min(max(100.0 * step, -700.0), 700.0)))


def reward(task: Task, feedback: Feedback, before: float, version: Version = "v2") -> float:
    """Returns the reward of one action whose state had score `before` (m_t).

    Raises:
        ValueError: for an infrastructure fault, which is never a reward: retry or drop the action.
    """
    if feedback.outcome is Outcome.INFRASTRUCTURE:
        raise ValueError("an infrastructure fault has no reward: retry or drop the action")
    if feedback.outcome is Outcome.EDIT:
        assert feedback.metric is not None, "an edit that ran has a metric"
        return performance_reward(task, before, feedback.metric, version)
    return FIXED[version][feedback.outcome]
