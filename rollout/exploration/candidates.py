"""Candidate ideas, from the library or from a language model that is shown the task and its script."""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence

from rollout.endpoint import ChatEndpoint
from rollout.exploration.draws import draw_ideas
from rollout.exploration.idea_text import distinct_ideas
from rollout.exploration.library import AXES, candidates_for
from tasks.naming import Names
from tasks.prompt import Message
from tasks.task import Instance, Task

MIN_PROPOSED = 2  # minimum number of different ideas that an endpoint must propose on an axis
MAX_QUESTIONS = 3  # requests to an endpoint about one axis of a task
PLAIN = Names("", "train.csv", "test.csv", "train.py")  # for a problem that no agent acts on

Candidates = Mapping[str, Mapping[str, Sequence[str]]]  # task -> axis -> ideas as written

PROPOSE_PROMPT = """\
A machine learning engineer is to improve this script.

Problem: {problem}

```python
{script}
```

Propose {count} different ideas on the axis {axis} ({meaning}). One short sentence each, one on a line, nothing else."""
MORE_PROMPT = """\
Propose {count} more ideas on the axis {axis}, different from all of those above. One short sentence each, one on a \
line, nothing else."""
AXIS_MEANINGS = {
    "Data": "what is done to rows, columns or texts before the model sees them",
    "Model": "which model is used",
    "Learning": "how the model is trained, tuned and validated",
}


def library_candidates(tasks: Sequence[Task]) -> dict[str, dict[str, list[str]]]:
    """Return the ideas of the library for the kind of each task."""
    return {
        task.name: {axis: [i.text for i in candidates_for(task.kind) if i.axis == axis] for axis in AXES}
        for task in tasks
    }


def library_drawer(task: Task) -> Callable[[int], Sequence[str]]:
    """Return a function that draws ideas of the library for a task, given a seed."""
    pool = {axis: ideas for axis, ideas in library_candidates([task])[task.name].items() if ideas}
    return lambda seed: draw_ideas(random.Random(f"{seed}/ideas"), pool)


async def propose_candidates(
    endpoint: ChatEndpoint, tasks: Sequence[Task], count: int, seed: int
) -> dict[str, dict[str, list[str]]]:
    """Return up to `count` different ideas that a language model proposes for each task and axis.

    If the model gives fewer, it is asked for the rest, up to `MAX_QUESTIONS` times. Duplicates among the lines are
    returned too, so that they can be counted.

    Args:
        endpoint: The language model.
        tasks: The tasks.
        count: The number of ideas on each axis.
        seed: The seed of the requests.

    Raises:
        InfrastructureError: With the endpoint's error type, if there is no usable answer.
    """
    questions = [(task, axis) for task in tasks for axis in AXES]
    answers = await asyncio.gather(*(_propose(endpoint, task, axis, count, seed) for task, axis in questions))
    candidates: dict[str, dict[str, list[str]]] = {task.name: {} for task in tasks}
    for (task, axis), lines in zip(questions, answers, strict=True):
        candidates[task.name][axis] = lines
    return candidates


async def _propose(endpoint: ChatEndpoint, task: Task, axis: str, count: int, seed: int) -> list[str]:
    problem = Instance(task, PLAIN).problem()
    first = PROPOSE_PROMPT.format(
        problem=problem, script=task.script, count=count, axis=axis, meaning=AXIS_MEANINGS[axis]
    )
    talk, lines, missing = [Message(role="user", content=first)], list[str](), count
    for question in range(MAX_QUESTIONS):
        # With the same seed, a deterministic server might repeat its answer.
        answer = await endpoint.ask(talk, seed=seed + question)
        said = answer.visible_text.splitlines()[:-1] if answer.is_cut else answer.visible_text.splitlines()
        lines = _up_to(count, [*lines, *filter(_is_proposal, said)])
        missing = count - len(distinct_ideas(lines))
        if not missing:
            break
        more = MORE_PROMPT.format(count=missing, axis=axis)
        talk += [Message(role="assistant", content="\n".join(said)), Message(role="user", content=more)]
    if count - missing < min(MIN_PROPOSED, count):
        raise endpoint.error(
            f"{endpoint.base_url} proposed {count - missing} different ideas for {task.name}, axis {axis}, in "
            f"{MAX_QUESTIONS} answers, expected at least {MIN_PROPOSED}; use another expert.model or "
            "ideas.source=library"
        )
    return lines


def _is_proposal(line: str) -> bool:
    """Return whether a line of an answer is an idea, rather than a code fence or a heading."""
    return bool(distinct_ideas([line])) and not line.lstrip().startswith("```") and not line.rstrip(" *_").endswith(":")


def _up_to(count: int, lines: Sequence[str]) -> list[str]:
    """Return the first of `lines`, up to the `count`-th different idea."""
    kept: list[str] = []
    for line in lines:
        if len(distinct_ideas(kept)) == count:
            break
        kept.append(line)
    return kept
