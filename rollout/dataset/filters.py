"""Filters of trajectories: each says in one function what it keeps."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping

from rollout.dataset.augmentation import SCRIPT_NAME
from rollout.types import Trajectory
from tasks.action import ends_trajectory
from tasks.feedback import Outcome

SHINGLE = 3  # words that are compared together
QUOTE = 8  # words of an idea that nobody writes by chance
TOLD = re.compile(r"\b(?:these|your|the (?:given|suggested|proposed|listed|provided)) ideas?\b|\bidea \(?[123]\b", re.I)
WORD = re.compile(r"\w+|[^\w\s]")

Keep = Callable[[Trajectory], bool]


def acted(trajectory: Trajectory) -> bool:
    """Return whether there is an action to learn from; a problem that fills the context leaves none."""
    return bool(trajectory.steps)


def valid_format(trajectory: Trajectory) -> bool:
    """Return whether every response was an action in the right format."""
    return all(step.feedback.outcome is not Outcome.INVALID for step in trajectory.steps)


def ended(trajectory: Trajectory) -> bool:
    """Return whether the agent ended it by its own answer, and no limit did."""
    return trajectory.end == "final_answer"


def edited(trajectory: Trajectory) -> bool:
    """Return whether an edit of it ran."""
    return any(step.feedback.outcome is Outcome.EDIT for step in trajectory.steps)


def no_leak(trajectory: Trajectory) -> bool:
    """Return whether no response speaks of ideas that it was given, or quotes one at length: the expert is shown
    them and the policy is not."""
    ideas = [idea for idea in map(_plain, trajectory.ideas) if idea.count(" ") >= QUOTE - 1]
    # The response as it stands, and its arguments, of which JSON may spell the letters otherwise.
    texts = [text for step in trajectory.steps for text in (step.response, *step.arguments.values())]
    return not any(TOLD.search(text) or any(idea in _plain(text) for idea in ideas) for text in texts)


def improved(directions: Mapping[str, str]) -> Keep:
    """Return the filter that keeps what ended with a better hidden score than the initial script's.

    `directions` says for each task whether to `maximize` or `minimize`.
    """
    return lambda trajectory: outcome_of(trajectory, directions) == "improved"


def within(max_characters: int) -> Keep:
    """Return the filter that keeps what an agent wrote and read in at most so many characters."""

    def keep(trajectory: Trajectory) -> bool:
        texts = (len(step.response) + len(step.feedback.text) for step in trajectory.steps)
        return len(trajectory.problem) + sum(texts) <= max_characters

    return keep


def distinct(max_similarity: float) -> Keep:
    """Return the filter that drops what an earlier trajectory of the same task did already, or nearly.

    Compared are the actions with their arguments, file names aside: two trajectories are as similar as the share of
    their runs of three words that both have (Jaccard). Where the task is not known, the problem says which it is. It
    remembers what it has kept, so it is used for one pass.
    """
    kept: defaultdict[str, list[frozenset[str]]] = defaultdict(list)

    def keep(trajectory: Trajectory) -> bool:
        mine, alike = shingles(trajectory), kept[trajectory.task or trajectory.problem]
        for other in alike:
            common = len(mine & other)
            if common >= max_similarity * (len(mine) + len(other) - common):
                return False
        alike.append(mine)
        return True

    return keep


def shingles(trajectory: Trajectory) -> frozenset[str]:
    """Return the runs of three words of what a trajectory did, in which every script has the same name.

    The final answer counts where nothing else was done.
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
    """Return what a trajectory came to: `improved`, `same`, `worse` than the initial script, or `no_submission`."""
    last = trajectory.steps[-1].after.last_submission if trajectory.steps else None
    if last is None:
        return "no_submission"
    gain = last - trajectory.steps[0].before.metric
    if not gain:
        return "same"
    if trajectory.task not in directions:
        raise ValueError(f"task {trajectory.task!r} of a trajectory is not known; name its folder in tasks.paths")
    return "improved" if (gain > 0) == (directions[trajectory.task] == "maximize") else "worse"


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
