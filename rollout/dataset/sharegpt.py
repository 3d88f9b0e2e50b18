"""Convert trajectories to ShareGPT conversations, which other trainers read, and back."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rollout.dataset.conversation import SPEAKERS, turns_of
from rollout.dataset.import_counts import ImportCounts
from rollout.storage.atomic_write import replacing
from rollout.types import Snapshot, Step, Trajectory
from tasks.action import Action, ends_trajectory
from tasks.feedback import Feedback, Outcome, error_text, is_not_edited
from tasks.naming import Names
from tasks.prompt import messages
from tasks.quoting import replace_unstorable
from tasks.response import parse_response

NOT_KNOWN = float("nan")
UNKNOWN = Snapshot({}, NOT_KNOWN, None, "", NOT_KNOWN)  # a conversation records no workspace


def to_sharegpt(trajectory: Trajectory, system: str) -> dict[str, Any]:
    """Return a trajectory as one conversation: `id`, `task`, `system`, and `conversations` that end with the agent.

    `system` is the system message that the agent read.

    Fine-tuning here trains on the turns of `gpt` only. The last feedback, which has no answer, is left out, as is
    everything that an agent does not read.
    """
    _, *chat = messages(trajectory.state(), system)
    return {
        "id": trajectory.trajectory_id,
        "task": trajectory.task,
        "system": system,
        "conversations": [{"from": SPEAKERS[each["role"]], "value": each["content"]} for each in chat[:-1]],
    }


def from_sharegpt(record: Mapping[str, Any], name: str) -> Trajectory:
    """Return a conversation as a trajectory to fine-tune on; it has no workspaces, so no rollout can start in it.

    Args:
        record: `conversations`, each `{from, value}`, or `messages`, each `{role, content}`, and optionally `id` and
            `task`. Its system texts are dropped, because a policy gets the system message of its own run.
        name: The trajectory id if the record has none.

    Raises:
        ValueError: If human and agent do not alternate, starting with the human.
    """
    chat = [turn for turn in turns_of(record) if turn[0] != "system"]
    for number, (speaker, text) in enumerate(chat):
        expected = ("human", "gpt")[number % 2]
        if speaker != expected:
            raise ValueError(f"has turn {number + 1} from {speaker!r}, expected a text from {expected!r}")
        if not isinstance(text, str):
            raise ValueError(f"has turn {number + 1} from {speaker!r} with {json.dumps(text)[:60]}, expected a text")
    if len(chat) < 2:
        raise ValueError(f"has {len(chat)} turns, expected a problem and an answer at least")
    texts = [replace_unstorable(text) for _, text in chat]
    feedbacks = [*texts[2::2], ""]
    steps = tuple(_step(response, feedback) for response, feedback in zip(texts[1::2], feedbacks, strict=False))
    task, own_name = ("" if record.get(key) is None else str(record[key]) for key in ("task", "id"))
    end = "final_answer" if ends_trajectory(steps[-1].action) else "step_limit"
    return Trajectory(own_name or name, task, 0, Names("", "", "", ""), texts[0], (), steps, end)


def write_sharegpt(path: Path, trajectories: Iterable[Trajectory], system: str) -> int:
    """Write one conversation per line, atomically, and return their number; a trajectory without a step has none."""
    count = 0
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for trajectory in trajectories:
            if trajectory.steps:
                file.write(json.dumps(to_sharegpt(trajectory, system), ensure_ascii=False) + "\n")
                count += 1
    return count


def read_sharegpt(path: Path, counts: ImportCounts | None = None) -> Iterator[Trajectory]:
    """Yield the trajectories of a file with one conversation per line, or one JSON list of conversations.

    Args:
        path: The file.
        counts: What to count the conversations with, and all that is left out of them.

    Raises:
        ValueError: If a conversation is malformed or repeats an id; names it.
    """
    seen: set[str] = set()
    for number, record in enumerate(_records(path), 1):
        try:
            if not isinstance(record, dict):
                raise ValueError("is no JSON object")
            trajectory = from_sharegpt(record, f"{path.stem}-{number:06d}")
            if trajectory.trajectory_id in seen:
                raise ValueError(f"repeats the id {trajectory.trajectory_id}; give each its own, or none")
            seen.add(trajectory.trajectory_id)
            if counts is not None:
                counts.add(record, trajectory)
            yield trajectory
        except ValueError as error:
            raise ValueError(f"{path}: conversation {number} {error}") from None


def _records(path: Path) -> Iterator[Any]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            start = file.read(64).lstrip()
            file.seek(0)
            if start.startswith("["):
                yield from _parsed(file.read(), str(path))
                return
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _parsed(line, f"{path} line {number}")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text; save it as UTF-8, and unpack it if it is compressed") from None


def _parsed(text: str, source: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{source} is not JSON ({error}); expected one conversation per line, or one list") from None


def _step(response: str, feedback: str) -> Step:
    action = parse_response(response).action
    if isinstance(action, Action):
        outcome = Outcome.EDIT if action.spec.is_edit else Outcome.NON_EDIT
        if feedback.startswith(error_text("")):
            outcome = Outcome.NOT_EDITED if is_not_edited(feedback) else Outcome.ERROR
        arguments = {key: replace_unstorable(value) for key, value in action.arguments.items()}
        return Step(response, action.name, arguments, Feedback(outcome, feedback), UNKNOWN, UNKNOWN, 0.0)
    return Step(response, "", {}, Feedback(Outcome.INVALID, feedback), UNKNOWN, UNKNOWN, 0.0)
