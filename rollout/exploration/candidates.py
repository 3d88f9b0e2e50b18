"""Where candidate ideas come from: the offline library, or a language model that is shown the task and its script."""

import asyncio
from collections.abc import Mapping, Sequence

from rollout.endpoint import ChatEndpoint
from rollout.exploration.library import AXES, candidates_for
from rollout.exploration.selection import distinct
from tasks.naming import Names
from tasks.prompt import Message
from tasks.task import Instance, Task

MIN_PROPOSED = 2  # different ideas an endpoint must give on an axis
MAX_QUESTIONS = 3  # put to an endpoint about one axis of a task
PLAIN = Names("", "train.csv", "test.csv", "train.py")  # of a problem that nobody is to act on

Candidates = Mapping[str, Mapping[str, Sequence[str]]]  # task -> axis -> ideas, as they were written

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
    """Return for each task the ideas of the offline library that are meant for its kind."""
    return {
        task.name: {axis: [i.text for i in candidates_for(task.kind) if i.axis == axis] for axis in AXES}
        for task in tasks
    }


async def propose_candidates(
    endpoint: ChatEndpoint, tasks: Sequence[Task], count: int, seed: int
) -> dict[str, dict[str, list[str]]]:
    """Return for each task what a language model proposes on each axis, up to `count` different ideas.

    A model that gives fewer is shown what it has said and asked for the rest, a few times; then what there is must do.
    Duplicates among the lines are returned too, so that they can be counted.

    Raises:
        InfrastructureError: as the endpoint's error type, when no usable answer came.
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
        # Another seed each time, or a server without randomness of its own might say the same again.
        answer = await endpoint.ask(talk, seed=seed + question)
        said = answer.visible_text.splitlines()[:-1] if answer.is_cut else answer.visible_text.splitlines()
        lines = _up_to(count, [*lines, *filter(_is_proposal, said)])
        missing = count - len(distinct(lines))
        if not missing:
            break
        more = MORE_PROMPT.format(count=missing, axis=axis)
        talk += [Message(role="assistant", content="\n".join(said)), Message(role="user", content=more)]
    if count - missing < min(MIN_PROPOSED, count):
        raise endpoint.error(
            f"{endpoint.base_url} proposed {count - missing} different ideas for {task.name}, axis {axis}, in "
            f"{MAX_QUESTIONS} answers, at least {MIN_PROPOSED} are needed; use another expert.model or "
            "ideas.source=library"
        )
    return lines


def _is_proposal(line: str) -> bool:
    """Return whether a line of an answer is meant as an idea, and is no fence and no heading of those that follow."""
    return bool(distinct([line])) and not line.lstrip().startswith("```") and not line.rstrip(" *_").endswith(":")


def _up_to(count: int, lines: Sequence[str]) -> list[str]:
    """Return the first of `lines` up to that which brings the `count`-th different idea."""
    kept: list[str] = []
    for line in lines:
        if len(distinct(kept)) == count:
            break
        kept.append(line)
    return kept
