"""The reward of a recorded step, with the rule that gives it in words."""

import math

from rollout.types import Step
from tasks.feedback import Outcome
from tasks.reward import Rules, reward
from tasks.task import Task

CASES = {
    Outcome.INVALID: "not an action",
    Outcome.ERROR: "the action failed",
    Outcome.NOT_EDITED: "the coder did not make the edit",
    Outcome.CORNER: "ran into a limit",
    Outcome.NON_EDIT: "edits nothing",
    Outcome.INFRASTRUCTURE: "an infrastructure failure is never rewarded",
}


def rewarded(task: Task | None, step: Step, rules: Rules, repeated: bool) -> tuple[float | None, str]:
    """Return the reward of a step by `tasks.reward`, and the rule that gave it.

    Args:
        task: The task of the trajectory, None if unknown. The reward is None then, as it is for an infrastructure
            failure, and for an edit without a score, which an imported trajectory has.
        step: The recorded step.
        rules: The rules of the reward.
        repeated: Whether the same trajectory had its edit instruction before.
    """
    outcome = step.feedback.outcome
    case = CASES.get(outcome, "") or _edit_case(task, step, rules, repeated)
    unscored = outcome is Outcome.EDIT and step.feedback.metric is None
    if task is None or unscored or outcome is Outcome.INFRASTRUCTURE:
        return None, case
    return reward(task, step.feedback, step.before.metric, rules, repeated), case


def _edit_case(task: Task | None, step: Step, rules: Rules, repeated: bool) -> str:
    before, after = step.before.metric, step.feedback.metric
    if task is None or after is None or not math.isfinite(task.m_best - task.m_init):
        return "an edit that ran; its task or score is unknown"
    if repeated and not rules.repeats:
        return "an edit that ran, with a repeated instruction"
    if abs(after - before) <= rules.noise_floor * task.noise:
        return "an edit that ran; the score changed within noise"
    if rules.performance == "binary":
        return "an edit that improved the score" if task.is_better(after, before) else "an edit that did not help"
    share = f"({after:.6g} − {before:.6g}) / ({task.m_best:.6g} − {task.m_init:.6g})"
    return f"edit ran: {share}" if rules.version == "v2" else f"edit ran: sigmoid of 100 × {share}"
