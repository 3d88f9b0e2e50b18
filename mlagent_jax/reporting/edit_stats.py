"""Statistics of the edits of a policy: their categories, the change of the score, and an example trajectory."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rollout.dataset.association import association
from rollout.dataset.edit_vocabulary import CATEGORY_TITLES
from rollout.dataset.edits import RecognizeRecipes, categories_of
from rollout.dataset.rarefaction import effective_number
from rollout.storage.blob_store import BlobStore
from rollout.types import Step, Trajectory
from tasks.action import Invalid, is_edit
from tasks.feedback import Outcome, shorten
from tasks.response import THOUGHT, parse_response
from tasks.reward import performance_reward
from tasks.task import Task

REFUSED = "refused"  # an edit that saved no script
OTHER_RECIPE = "other"  # an edit whose instruction asks for no known recipe
EXAMPLE_CHARACTERS = 600


def edit_stats(
    trajectories: Sequence[Trajectory],
    tasks: Mapping[str, Task],
    store: BlobStore,
    seed: int,
    recognize: RecognizeRecipes | None = None,
) -> dict[str, Any]:
    """Return the statistics of the edits in `trajectories` as plain JSON values.

    `actions` has the share of each action, `categories` the edits by primary category, `recipes` those by recipe if
    `recognize` is given, and `example` one trajectory. See `count_edits` for the rows. `effective_kinds` is the
    effective number of kinds of edits, which are recipes if `recognize` is given and categories otherwise, and `choice`
    says whether they depend on the task.

    Args:
        trajectories: The trajectories of one policy.
        tasks: Name -> task.
        store: The blobs of their scripts.
        seed: The seed of the permutations of `choice`.
        recognize: A function that names the recipes that an instruction asks for, if a scripted coder carried it out.
    """
    steps = [step for trajectory in trajectories for step in trajectory.steps]
    actions = Counter(step.action or "not an action" for step in steps)

    def category(step: Step) -> Sequence[str]:
        return categories_of(step, store)[:1] or [REFUSED]

    def recipes(step: Step) -> Sequence[str]:
        assert recognize is not None
        return recognize(step.arguments["edit_instruction"]) or [OTHER_RECIPE]

    kinds_of = category if recognize is None else recipes
    kinds = [
        (each.task, [kind for step in each.steps if is_edit(step.action) for kind in kinds_of(step)])
        for each in trajectories
    ]
    choice = association(kinds, seed)
    return {
        "num_trajectories": len(trajectories),
        "actions": {name: count / len(steps) for name, count in actions.most_common()},
        "categories": count_edits(trajectories, tasks, category),
        "recipes": [] if recognize is None else count_edits(trajectories, tasks, recipes),
        "effective_kinds": effective_number(Counter(kind for _, labels in kinds for kind in labels)),
        "choice": None if choice is None else asdict(choice),
        "example": example(trajectories, tasks) if trajectories else None,
    }


def count_edits(
    trajectories: Sequence[Trajectory], tasks: Mapping[str, Task], names_of: Callable[[Step], Sequence[str]]
) -> list[dict[str, Any]]:
    """Return one row `{name, title, count, num_ran, mean_change}` for each name of an edit, most frequent first.

    `mean_change` is the mean v2 reward (m_{t+1} - m_t) / (m_best - m_init) of the edits that ran, None if none ran. An
    edit with two names counts for both.
    """
    counts: Counter[str] = Counter()
    changes: dict[str, list[float]] = defaultdict(list)
    for trajectory in trajectories:
        for step in trajectory.steps:
            if not is_edit(step.action):
                continue
            for name in names_of(step):
                counts[name] += 1
                if step.feedback.outcome is Outcome.EDIT and step.feedback.metric is not None:
                    task = tasks[trajectory.task]
                    changes[name].append(performance_reward(task, step.before.metric, step.feedback.metric))
    return [
        {
            "name": name,
            "title": title_of(name),
            "count": count,
            "num_ran": len(changes[name]),
            "mean_change": sum(changes[name]) / len(changes[name]) if changes[name] else None,
        }
        for name, count in counts.most_common()
    ]


def title_of(name: str) -> str:
    """Return the title of a category or recipe."""
    titles: Mapping[str, str] = {**CATEGORY_TITLES, REFUSED: "Refused, nothing saved"}
    return titles.get(name, name.replace("_", " "))


def example(trajectories: Sequence[Trajectory], tasks: Mapping[str, Task]) -> dict[str, Any]:
    """Return the trajectory of median gain step by step, which is neither the best nor the worst."""

    def gain(trajectory: Trajectory) -> float:
        task = tasks[trajectory.task]
        return task.gain(trajectory.score(task.m_init))

    chosen = sorted(trajectories, key=gain)[len(trajectories) // 2]
    steps = []
    for step in chosen.steps:
        fields = parse_response(step.response).fields
        steps.append(
            {
                "thought": shorten("" if isinstance(fields, Invalid) else fields[THOUGHT], EXAMPLE_CHARACTERS),
                "action": step.action or "not an action",
                "arguments": {key: shorten(value, EXAMPLE_CHARACTERS) for key, value in step.arguments.items()},
                "response": "" if step.action else shorten(step.response, EXAMPLE_CHARACTERS),
                "outcome": step.feedback.outcome.value,
                "feedback": shorten(step.feedback.text, EXAMPLE_CHARACTERS),
            }
        )
    return {"task": chosen.task, "gain": gain(chosen), "steps": steps}
