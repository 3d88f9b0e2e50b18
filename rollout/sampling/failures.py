"""Why the actions of trajectories fail, and how often an edit repeats an earlier one."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from enum import StrEnum

from rollout.environment.paths import FILE_NAME
from rollout.types import Step, Trajectory
from tasks.action import ACTIONS, is_edit, plain_instruction
from tasks.feedback import SAVED, Outcome


class Cause(StrEnum):
    """The causes of failures; the first that holds counts."""

    INVALID = "invalid"  # the response is not an action
    REPEATED = "repeated"  # the instruction was given before in the trajectory
    LIMIT = "limit"  # the script hit a limit: time, memory, disk
    SCRIPT = "script"  # the script crashed, or an edited one left no valid submission
    UNKNOWN_FILE = "unknown_file"  # the file to work on is not in the workspace
    NOT_EDITED = "not_edited"  # the coder did not make the edit
    REFUSED = "refused"  # any other refusal, such as to write a read-only file


FAILED = frozenset({Outcome.INVALID, Outcome.ERROR, Outcome.NOT_EDITED, Outcome.CORNER})


def failure_cause(step: Step, earlier: Collection[str]) -> Cause | None:
    """Return why an action failed, None if it did not.

    Args:
        step: The action.
        earlier: The plain instructions of the edits before it in its trajectory.
    """
    outcome = step.feedback.outcome
    if outcome not in FAILED:
        return None
    if outcome is Outcome.INVALID:
        return Cause.INVALID
    if is_edit(step.action) and plain_instruction(step.action, step.arguments) in earlier:
        return Cause.REPEATED
    if outcome is Outcome.CORNER:
        return Cause.LIMIT
    if ran_script(step):
        return Cause.SCRIPT
    if _is_unknown_file(step):
        return Cause.UNKNOWN_FILE
    return Cause.NOT_EDITED if outcome is Outcome.NOT_EDITED else Cause.REFUSED


def ran_script(step: Step) -> bool:
    """Return whether an action ran a script, or would have if it had not been answered from the cache."""
    if step.action not in ACTIONS or not ACTIONS[step.action].runs_script:
        return False
    if step.feedback.outcome is not Outcome.ERROR:
        return step.feedback.outcome is not Outcome.NOT_EDITED
    text = step.feedback.text  # one that was refused has run nothing
    return text.startswith(SAVED) or " crashed." in text.partition("\n")[0]


def failure_shares(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Return the share of each cause among all actions, and their sum as `all`."""
    causes = [failure_cause(step, earlier) for one in trajectories for step, earlier in _with_earlier(one.steps)]
    counts, total = Counter(filter(None, causes)), max(len(causes), 1)
    shares = {cause.value: counts[cause] / total for cause in Cause}
    return {"all": sum(shares.values()), **shares}


def repeated_share(trajectories: Iterable[Trajectory]) -> float:
    """Return the share of edits whose instruction was given before in their trajectory, 0 without edits."""
    are_repeated = [
        plain_instruction(step.action, step.arguments) in earlier
        for one in trajectories
        for step, earlier in _with_earlier(one.steps)
        if is_edit(step.action)
    ]
    return sum(are_repeated) / max(len(are_repeated), 1)


def _with_earlier(steps: Iterable[Step]) -> Iterator[tuple[Step, frozenset[str]]]:
    """Yield each step with the plain instructions of the edits before it."""
    earlier: frozenset[str] = frozenset()
    for step in steps:
        yield step, earlier
        if is_edit(step.action):
            earlier |= {plain_instruction(step.action, step.arguments)}


def _is_unknown_file(step: Step) -> bool:
    spec = ACTIONS.get(step.action)
    if spec is None or spec.input_file is None:
        return False
    name = step.arguments[spec.input_file].strip().removeprefix("./")
    return (
        FILE_NAME.fullmatch(name) is not None and name not in step.before.files and f"{name}/" not in step.before.files
    )
