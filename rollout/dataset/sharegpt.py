"""Trajectories as ShareGPT conversations, the form that other trainers read, and such conversations as trajectories."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rollout.storage.utf8 import replace_unstorable
from rollout.types import Snapshot, Step, Trajectory
from tasks.action import Action, ends_trajectory, parse_response
from tasks.feedback import Feedback, Outcome, error_text
from tasks.naming import Names
from tasks.prompt import messages

SPEAKERS = {"user": "human", "assistant": "gpt"}
NOT_KNOWN = float("nan")
UNKNOWN = Snapshot({}, NOT_KNOWN, None, "", NOT_KNOWN)  # the world of a conversation, of which only words are left


def to_sharegpt(trajectory: Trajectory) -> dict[str, Any]:
    """Return a trajectory as one conversation: `id`, `task`, `system`, and `conversations` that end with the agent.

    Training on the turns of `gpt` alone is what fine-tuning here does. The last feedback, which nobody answers, is left
    out, and so is everything that an agent does not read.
    """
    system, *chat = messages(trajectory.state())
    return {
        "id": trajectory.trajectory_id,
        "task": trajectory.task,
        "system": system["content"],
        "conversations": [{"from": SPEAKERS[each["role"]], "value": each["content"]} for each in chat[:-1]],
    }


def from_sharegpt(record: Mapping[str, Any], name: str) -> Trajectory:
    """Return a conversation as a trajectory to fine-tune on. It has no workspaces, so no action can begin in it.

    Args:
        record: `conversations`, each `{from, value}`, and `task` where it is known; a `system` message of its own is
            not kept, since a policy is always told the one of this project.
        name: what the trajectory is called, unless the record has an `id`.

    Raises:
        ValueError: where the conversation is not one of human and agent in turns, the human first.
    """
    said = record.get("conversations")
    if not isinstance(said, list) or not all(isinstance(each, dict) for each in said):
        raise ValueError("has no list `conversations` of objects {from, value}")
    chat = [each for each in said if each.get("from") != "system"]
    for number, each in enumerate(chat):
        speaker = ("human", "gpt")[number % 2]
        if each.get("from") != speaker or not isinstance(each.get("value"), str):
            raise ValueError(f"has turn {number + 1} from {each.get('from')!r}, expected a text from {speaker!r}")
    if len(chat) < 2:
        raise ValueError(f"has {len(chat)} turns, expected a problem and an answer at least")
    texts = [replace_unstorable(each["value"]) for each in chat]
    feedbacks = [*texts[2::2], ""]
    steps = tuple(_step(response, feedback) for response, feedback in zip(texts[1::2], feedbacks, strict=False))
    task, own_name = ("" if record.get(key) is None else str(record[key]) for key in ("task", "id"))
    end = "final_answer" if ends_trajectory(steps[-1].action) else "step_limit"
    return Trajectory(own_name or name, task, 0, Names("", "", "", ""), texts[0], (), steps, end)


def write_sharegpt(path: Path, trajectories: Iterable[Trajectory]) -> int:
    """Write a conversation a line, and returns how many; the file is there whole or not at all."""
    aside, count = path.with_name(f".{path.name}.part"), 0
    try:
        with aside.open("w", encoding="utf-8") as file:
            for trajectory in trajectories:
                if trajectory.steps:
                    file.write(json.dumps(to_sharegpt(trajectory), ensure_ascii=False) + "\n")
                    count += 1
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return count


def read_sharegpt(path: Path) -> Iterator[Trajectory]:
    """Yield the trajectories of a file: a conversation a line, or one JSON list of them.

    Raises:
        ValueError: naming the conversation that is none, or has the id of one before.
    """
    seen: set[str] = set()
    for number, record in enumerate(_records(path), 1):
        try:
            if not isinstance(record, dict):
                raise ValueError("is no JSON object")
            trajectory = from_sharegpt(record, f"{path.stem}-{number:06d}")
            if trajectory.trajectory_id in seen:
                raise ValueError(f"has the id {trajectory.trajectory_id} of one before; give each its own, or none")
            seen.add(trajectory.trajectory_id)
            yield trajectory
        except ValueError as error:
            raise ValueError(f"{path}: conversation {number} {error}") from None


def _records(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8-sig") as file:
        start = file.read(64).lstrip()
        file.seek(0)
        if start.startswith("["):
            yield from _parsed(file.read(), str(path))
            return
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _parsed(line, f"{path} line {number}")


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not JSON ({error}); expected a conversation a line, or one list") from None


def _step(response: str, feedback: str) -> Step:
    action = parse_response(response)
    if isinstance(action, Action):
        outcome = Outcome.EDIT if action.spec.is_edit else Outcome.NON_EDIT
        if feedback.startswith(error_text("")):
            outcome = Outcome.ERROR
        arguments = {key: replace_unstorable(value) for key, value in action.arguments.items()}
        return Step(response, action.name, arguments, Feedback(outcome, feedback), UNKNOWN, UNKNOWN, 0.0)
    return Step(response, "", {}, Feedback(Outcome.INVALID, feedback), UNKNOWN, UNKNOWN, 0.0)
