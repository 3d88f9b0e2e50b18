"""A toy task, and fast fakes of the components that need processes."""

import ast
import asyncio
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from rollout.environment.environment import Environment
from rollout.options import Observation
from rollout.storage.blob_store import BlobStore
from rollout.types import CoderReply, Completion, Execution, Exit, Job, Response
from tasks import action as grammar
from tasks.action import Action
from tasks.naming import Names
from tasks.response import FIELDS, format_response
from tasks.state import State
from tasks.task import Instance, Task

TRUTH = [0, 1, 0, 1, 1, 0, 1, 1, 0, 1]
SCRIPT = """\
train = "train.csv"
test = "test.csv"
correct = 5
validation = 0.5
"""


@dataclass
class FakeExecutor:
    """An executor that evaluates a toy script's assignments instead of running it."""

    store: BlobStore
    faults: list[Exception] = field(default_factory=list)  # raised one by one, before anything runs
    jobs: list[Job] = field(default_factory=list)

    async def run(self, job: Job) -> Execution:
        await asyncio.sleep(0)
        self.jobs.append(job)
        if self.faults:
            raise self.faults.pop(0)
        source = self.store.get(job.files[job.script]).decode()
        says = {key: ast.literal_eval(value) for key, value in re.findall(r"^(\w+) = (.+)$", source, re.MULTILINE)}
        if "exit" in says:
            return Execution(Exit(says["exit"]), says.get("output", ""), None, 0.5, "fake")
        output = f"validation accuracy: {says['validation']:.4f}\n" if "validation" in says else ""
        submission = says.get("submission")
        if "correct" in says:
            rows = [truth if i < says["correct"] else 1 - truth for i, truth in enumerate(TRUTH)]
            submission = "id,target\n" + "".join(f"{i},{row}\n" for i, row in enumerate(rows))
        blob = None if submission is None else submission.encode()
        return Execution(Exit.OK, says.get("output", "") + output, blob, 0.5, "fake")


class FakeCoder:
    """A coder that sets the toy script's variables to those in an instruction, given as JSON."""

    async def edit(self, source: str, instruction: str) -> CoderReply:
        try:
            changes = json.loads(instruction)
        except ValueError:
            return CoderReply(None, "I do not understand the instruction")
        for key, value in changes.items():
            source = re.sub(rf"^{key} = .+\n", "", source, flags=re.MULTILINE)
            source += "" if value is None else f"{key} = {value!r}\n"
        return CoderReply(source)

    async def describe(self, name: str, content: str, things_to_look_for: str) -> str:
        return f"{len(content.splitlines())} lines about {things_to_look_for}"


def respond(name: str, **arguments: object) -> str:
    """Return a well-formed response."""
    action = Action(name, {key: str(value) for key, value in arguments.items()})
    return format_response(dict.fromkeys(FIELDS[:4], "Fine."), action)


def edit(script: str, save: str, **changes: object) -> str:
    """Return a response that edits a toy script."""
    return respond(grammar.EDIT, script_name=script, edit_instruction=json.dumps(changes), save_name=save)


@dataclass
class ScriptedActor:
    """An actor that responds with its lines; a line may be an exception to raise, or None for a full context."""

    lines: Sequence[str | Exception | None]
    calls: list[tuple[Instance, State, int]] = field(default_factory=list)

    async def act(self, instance: Instance, state: State, seed: int) -> Response | None:
        await asyncio.sleep(0)
        self.calls.append((instance, state, seed))
        line = self.lines[len(state.turns)]
        if isinstance(line, Exception):
            raise line
        return None if line is None else Response(line.replace("SCRIPT", instance.names.script), wording=f'["{seed}"]')


@dataclass
class FakePolicy:
    """A policy that samples from a list of responses by seed, with one token per character."""

    responses: Sequence[str]
    version: int = 3
    calls: list[tuple[int, int]] = field(default_factory=list)

    async def sample(self, prompt_ids: Sequence[int], *, num_samples: int, seed: int) -> list[Completion]:
        await asyncio.sleep(0)
        self.calls.append((num_samples, seed))
        texts = [self.responses[(seed + i) % len(self.responses)] for i in range(num_samples)]
        return [Completion(tuple(map(ord, text)), (-0.25,) * len(text), self.version, "stop") for text in texts]


class CharacterTokenizer:
    """A tokenizer with one token per character."""

    def prompt_ids(self, state: State) -> list[int]:
        return [ord(c) for c in state.problem + "".join(turn.response + turn.feedback for turn in state.turns)]

    def prompts(self, state: State) -> tuple[list[int], list[int]]:
        token_ids = self.prompt_ids(state)
        prefixes = (State(state.problem, state.turns[:depth]) for depth in range(len(state.turns) + 1))
        return token_ids, [len(self.prompt_ids(prefix)) for prefix in prefixes]

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(map(chr, token_ids))


@dataclass
class Toys:
    """The toy task, the fakes, and an environment made of them."""

    make_task: Callable[..., Task]
    instance: Instance
    store: BlobStore
    executor: FakeExecutor
    environment: Environment
    respond = staticmethod(respond)
    edit = staticmethod(edit)
    actor = ScriptedActor
    policy = FakePolicy
    tokenizer = CharacterTokenizer()


SHORT = Observation(  # the quickstart's
    script_characters=400,
    output_characters=400,
    edit_output_characters=200,
    diff_characters=500,
    error_characters=300,
    traceback=False,
)


def toy_task(folder: Path, truth: Sequence[int] = TRUTH) -> Task:
    """Return a task with its data in a folder: accuracy on ten rows, from 0.5 to 1.0."""
    public, private = folder / "public", folder / "private"
    public.mkdir()
    private.mkdir()
    (public / "train.csv").write_text("id,x,target\n0,1,0\n")
    (public / "test.csv").write_text("id,x\n" + "".join(f"{i},{i}\n" for i in range(len(truth))))
    (private / "answers.csv").write_text("id,target\n" + "".join(f"{i},{y}\n" for i, y in enumerate(truth)))
    return Task(
        name="toy",
        kind="tabular-classification",
        split="held_in",
        metric="accuracy",
        direction="maximize",
        m_init=0.5,
        validation_init=0.5,
        m_best=1.0,
        m_best_source="all rows right",
        problem="Predict target from {train_file} for {test_file}; the script is {script}.",
        script=SCRIPT,
        public=public,
        private=private,
    )


@pytest.fixture
def toys(tmp_path: Path) -> Toys:
    """A toy task, its instance, and an environment of fakes."""

    def make_task(name: str = "toy", split: str = "held_in") -> Task:
        return replace(task, name=name, split=split)  # type: ignore[arg-type]

    task = toy_task(tmp_path)
    store = BlobStore(tmp_path / "blobs")
    executor = FakeExecutor(store)
    names = Names("maple", "birch_train.csv", "birch_test.csv", "cedar.py")
    environment = Environment(store, executor, FakeCoder(), SHORT, show_script=False)
    return Toys(make_task, Instance(make_task(), names), store, executor, environment)
