"""Filters of trajectories: predicates that are true for the trajectories to keep."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping

from rollout.dataset.augmentation import SCRIPT_NAME
from rollout.types import Trajectory
from tasks.action import ends_trajectory
from tasks.feedback import Outcome

SHINGLE = 3  # words compared together
QUOTE = 8  # words of an idea that nobody writes by chance
IDEAS = re.compile(
    r"\b(?:these|your|the (?:given|suggested|proposed|listed|provided)) ideas?\b|\bidea \(?[123]\b", re.I
)
WORD = re.compile(r"\w+|[^\w\s]")

Keep = Callable[[Trajectory], bool]


def acted(trajectory: Trajectory) -> bool:
    """Return whether there is an action to learn from; there is none if the problem fills the context."""
    return bool(trajectory.steps)


def valid_format(trajectory: Trajectory) -> bool:
    """Return whether every response was an action in the right format."""
    return all(step.feedback.outcome is not Outcome.INVALID for step in trajectory.steps)


def ended(trajectory: Trajectory) -> bool:
    """Return whether the agent ended the trajectory with an answer, rather than a limit."""
    return trajectory.end == "final_answer"


def edited(trajectory: Trajectory) -> bool:
    """Return whether an edit of the trajectory ran."""
    return any(step.feedback.outcome is Outcome.EDIT for step in trajectory.steps)


def no_leak(trajectory: Trajectory) -> bool:
    """Return whether no response mentions the given ideas or quotes one at length.

    The expert is shown ideas and the policy is not.
    """
    ideas = [idea for idea in map(_plain, trajectory.ideas) if idea.count(" ") >= QUOTE - 1]
    # The arguments as well as the response, because JSON may escape their letters.
    texts = [text for step in trajectory.steps for text in (step.response, *step.arguments.values())]
    return not any(IDEAS.search(text) or any(idea in _plain(text) for idea in ideas) for text in texts)


def improved(directions: Mapping[str, str]) -> Keep:
    """Return the filter that keeps trajectories whose hidden score is better than the initial script's.

    `directions` maps each task to `maximize` or `minimize`.
    """
    return lambda trajectory: outcome_of(trajectory, directions) == "improved"


def within(max_characters: int) -> Keep:
    """Return the filter that keeps trajectories whose texts have at most `max_characters` characters."""

    def keep(trajectory: Trajectory) -> bool:
        texts = (len(step.response) + len(step.feedback.text) for step in trajectory.steps)
        return len(trajectory.problem) + sum(texts) <= max_characters

    return keep


def distinct(max_similarity: float) -> Keep:
    """Return the filter that drops trajectories too similar to an earlier one of the same task.

    The similarity of two trajectories is the Jaccard index of their runs of three words, taken from the actions with
    their arguments but without file names. If the task is unknown, its problem text identifies it. The filter stores
    the trajectories that it has kept, so use it for one pass only.
    """
    kept: defaultdict[str, list[frozenset[str]]] = defaultdict(list)

    def keep(trajectory: Trajectory) -> bool:
        new, earlier = shingles(trajectory), kept[trajectory.task or trajectory.problem]
        for other in earlier:
            common = len(new & other)
            if common >= max_similarity * (len(new) + len(other) - common):
                return False
        earlier.append(new)
        return True

    return keep


def shingles(trajectory: Trajectory) -> frozenset[str]:
    """Return the runs of three words of the actions of a trajectory, with one name for all scripts.

    The final answer counts only if there is no other action.
    """
    names = trajectory.names
    data = re.compile("|".join(re.escape(name) for name in (names.train_file, names.test_file) if name) or "(?!)")
    actions = []
    for step in [step for step in trajectory.steps if not ends_trajectory(step.action)] or trajectory.steps:
        said = f"{step.action or step.response} {' '.join(step.arguments.values())}"
        actions.append(SCRIPT_NAME.sub("script", data.sub("data", said)).lower())
    words = WORD.findall(" . ".join(actions))
    return frozenset(" ".join(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1)))


def outcome_of(trajectory: Trajectory, directions: Mapping[str, str]) -> str:
    """Return the outcome against the initial script: `improved`, `same`, `worse`, or `no_submission`."""
    last = trajectory.steps[-1].after.last_submission if trajectory.steps else None
    if last is None:
        return "no_submission"
    gain = last - trajectory.steps[0].before.metric
    if not gain:
        return "same"
    if trajectory.task not in directions:
        raise ValueError(f"unknown task {trajectory.task!r} of a trajectory; name its folder in tasks.paths")
    return "improved" if (gain > 0) == (directions[trajectory.task] == "maximize") else "worse"


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
