"""A collection of toy trajectories of every kind of step, and what a page holds of them."""

import asyncio
import base64
import json
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from rollout.dataset.viewer import write_page
from rollout.sampling.episode import run_episode
from rollout.types import Trajectory
from tasks import action as grammar
from tasks.naming import Names
from tasks.reward import PAPER, Rules
from tasks.task import Instance, Task

HOSTILE = (
    "</script><script>window.hacked = 1</script>\n<img src=x onerror='window.hacked = 2'>\u2028\u2029\x1b[31mred\x00"
    "<svg onload=window.hacked=3> &lt;b&gt; {{ 7 * 7 }} <!-- --> ]]> \u202egnp.exe 🦉"
)


@dataclass(frozen=True)
class Collection:
    """Toy trajectories by group, their tasks, and a way to make more."""

    groups: dict[str, list[Trajectory]]
    tasks: dict[str, Task]
    play: Callable[..., Trajectory]
    store: Any

    def write(self, path: Path, rules: Rules = PAPER, **settings: Any) -> Path:
        """Writes the page of all."""
        write_page(path, self.groups, self.tasks, rules, "toys", **settings)
        return path


@dataclass(frozen=True)
class Decoded:
    """What a page holds: its index, and its trajectories chunk by chunk."""

    text: str
    index: dict[str, Any]
    chunks: list[list[list[Any]]]

    @property
    def trajectories(self) -> list[dict[str, Any]]:
        """The trajectories in order, columns and steps by name."""
        found = []
        for line in (line for chunk in self.chunks for line in chunk):
            one = dict(zip(self.index["trajectory_columns"], line, strict=True))
            one["steps"] = [dict(zip(self.index["step_columns"], step, strict=True)) for step in one["steps"]]
            found.append(one)
        return found


def _decode(path: Path) -> Decoded:
    text = path.read_text(encoding="utf-8")

    def unpacked(element: str) -> str:
        found = re.findall(rf'<script type="text/plain" id="{element}">([^<]*)</script>', text)
        assert len(found) == 1
        return zlib.decompress(base64.b64decode(found[0])).decode()

    index = json.loads(unpacked("index"))
    chunks = [unpacked(f"chunk-{number}").split("\n") for number in range(len(index["chunks"]))]
    return Decoded(text, index, [[json.loads(line) for line in chunk] for chunk in chunks])


@pytest.fixture
def decode() -> Callable[[Path], Decoded]:
    return _decode


@pytest.fixture
def collection(toys: Any) -> Collection:
    tasks = {name: toys.make_task(name) for name in ("amber_price", "birch_sound", "cedar_image")}

    def play(
        name: str, lines: Sequence[str], *, task: str = "amber_price", ideas: Sequence[str] = (), max_steps: int = 9
    ) -> Trajectory:
        """Plays the lines in the toy environment; `SCRIPT` stands for the initial script."""
        names = Names("maple", "birch_train.csv", "birch_test.csv", "cedar.py")
        instance = Instance(replace(toys.instance.task, name=task), names)
        return asyncio.run(
            run_episode(
                toys.environment,
                toys.actor(lines),
                instance,
                trajectory_id=name,
                seed=7,
                max_steps=max_steps,
                max_seconds=60,
                ideas=ideas,
            )
        )

    answer = toys.respond(grammar.FINAL_ANSWER, final_answer="done")
    look = toys.respond(grammar.LIST_FILES, dir_path=".")

    def edits(correct: int, **more: object) -> str:
        return toys.edit("SCRIPT", f"elm_{correct}.py", correct=correct, validation=correct / 10, **more)

    crash = toys.edit("SCRIPT", "oak.py", exit="crashed", output="ValueError: no such column")
    slow = toys.edit("SCRIPT", "fir.py", exit="timeout")
    unmade = toys.respond(grammar.EDIT, script_name="SCRIPT", edit_instruction="not understood", save_name="fir.py")
    names = list(tasks)
    expert = [
        play(f"a-{i:03d}", [look, edits(4 + i % 6), answer], task=names[i % 3], ideas=[f"Idea number {i % 5}."])
        for i in range(24)
    ]
    expert += [
        play("crashed", [crash, unmade, edits(7), answer]),
        play("slow", [slow, edits(8), edits(9), edits(6), answer], task="birch_sound"),
        play("invalid", ["I would rather not.", edits(7), answer]),
        play("cut", [look] * 15, max_steps=15, task="cedar_image"),
        play(
            "hostile <img src=x onerror='window.hacked = 4'>/é",
            [
                HOSTILE,
                toys.respond(grammar.LIST_FILES, dir_path=HOSTILE),
                toys.edit("SCRIPT", "oak.py", exit="crashed", output=HOSTILE),
                f"{answer[:-6]}{HOSTILE}",
            ],
            ideas=[HOSTILE],
            max_steps=4,
        ),
    ]
    ppo = [play(f"a-{i:03d}", [edits(9), answer], task=names[i % 3]) for i in range(12)]
    return Collection({"expert": expert, "ppo": ppo}, tasks, play, toys.store)
