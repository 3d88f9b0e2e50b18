"""The stage collect, with ideas and without: the expert's prompts, and the variety of its edits."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.run.context import RunContext
from mlagent_jax.run.endpoints import Endpoints
from mlagent_jax.run.run_dir import RunDir
from mlagent_jax.stages.collect import STAGE
from mlagent_jax.stages.stage import StageContext
from mlagent_jax.tracking.jsonl import read_metrics
from mlagent_jax.tracking.progress import Reporter
from rollout.environment.environment import Environment
from rollout.executor import SandboxBackend, SandboxPool
from rollout.executor.backends.base import Capabilities
from rollout.executor.resources import Resources
from rollout.exploration.candidates import library_candidates
from rollout.exploration.pools import build_pools
from rollout.options import Observation
from rollout.runtime.event_loop import EventLoopThread
from rollout.runtime.timeline import Timeline
from rollout.scripted.coder import ScriptedCoder
from rollout.scripted.expert import ScriptedExpert
from rollout.scripted.recipes import recognize
from rollout.storage.blob_store import BlobStore
from rollout.storage.trajectories import read_trajectories
from rollout.types import Execution, Exit, Job, Response, Trajectory
from tasks.action import EDIT
from tasks.prompt import IDEAS_LINE
from tasks.registry import find
from tasks.state import State
from tasks.task import Instance, Task

NUM_TRAJECTORIES = 24
NUM_ROWS = 50


class Guessing:
    """A sandbox backend that gives every script a score drawn by its text, in no time."""

    capabilities = Capabilities()
    tier = "none"

    def __init__(self, store: BlobStore) -> None:
        self._store = store

    def machines(self) -> dict[str, Resources]:
        return {"here": Resources(2, 4096)}

    async def run(self, job: Job, machine: str) -> Execution:
        rng = random.Random(self._store.get(job.files[job.script]))
        score = rng.random()
        rows = "".join(f"{row},{int(rng.random() < score)}\n" for row in range(NUM_ROWS))
        submission = f"id,target\n{rows}".encode()
        return Execution(Exit.OK, f"validation accuracy: {score:.4f}\n", submission, 0.5, "none")


@pytest.fixture
def collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[list[Trajectory], list[str]]]:
    """Returns the trajectories of the stage under a source of ideas, and the problems that the expert was given."""
    read: list[str] = []
    act = ScriptedExpert.act

    async def noted(self: ScriptedExpert, instance: Instance, state: State, seed: int) -> Response | None:
        read.append(state.problem)
        return await act(self, instance, state, seed)

    monkeypatch.setattr(ScriptedExpert, "act", noted)
    public, private = tmp_path / "public", tmp_path / "private"
    for folder, name in ((public, "train.csv"), (public, "test.csv"), (private, "answers.csv")):
        folder.mkdir(exist_ok=True)
        (folder / name).write_text("id,target\n" + "".join(f"{row},1\n" for row in range(NUM_ROWS)))
    script = (find("customer_churn").folder / "train.py").read_text()
    problem = "Predict target from {train_file} for {test_file}; the script is {script}."
    task = Task(
        *("churn", "tabular-classification", "held_in", "accuracy", "maximize", 0.5, 0.5, 1.0, "all", problem, script),
        *(public, private),
    )

    def collect(source: str) -> tuple[list[Trajectory], list[str]]:
        read.clear()
        settings = [f"ideas.source={source}", f"collect.num_trajectories={NUM_TRAJECTORIES}"]
        config, run_dir = load_config(None, settings), RunDir(tmp_path / source)
        run_dir.root.mkdir()
        if source == "library":  # spread out without the sentence encoder, which takes seconds to start
            rng = np.random.default_rng(0)
            candidates = library_candidates([task])
            embed = lambda texts: rng.normal(size=(len(texts), 8))  # noqa: E731
            build_pools(run_dir.path("ideas.json"), candidates, 10, 0, embed=embed)
        store = BlobStore(tmp_path / "blobs")
        with Timeline(run_dir.timeline) as timeline, EventLoopThread() as event_loop:
            pool = SandboxPool(cast(SandboxBackend, Guessing(store)))
            environment = Environment(store, pool, ScriptedCoder(), Observation(), show_script=False)
            context = RunContext(
                *({"churn": task}, environment, event_loop, 4, 2, timeline, pool.scheduler),
                Endpoints(config.expert, config.coder, run_dir.exchanges, event_loop),
                None,
            )
            figures = STAGE.run(StageContext(config, run_dir, Reporter(), open_context=context))
        (line,) = read_metrics(run_dir.metrics)
        assert line["collect/gain"] == figures["gain"]
        assert run_dir.path("ideas.json").exists()
        return read_trajectories(run_dir.path("trajectories")), list(read)

    return collect


def tried(trajectories: list[Trajectory]) -> set[str]:
    """Returns the recipes that the edits of the trajectories asked for."""
    edits = [step.arguments["edit_instruction"] for one in trajectories for step in one.steps if step.action == EDIT]
    return {name for edit in edits for name in recognize(edit)}


def test_without_ideas_no_prompt_has_one_and_less_is_tried(
    collected: Callable[[str], tuple[list[Trajectory], list[str]]],
) -> None:
    with_ideas, prompts = collected("library")
    assert all(IDEAS_LINE in prompt for prompt in prompts)
    without, prompts = collected("none")
    assert prompts and not any(IDEAS_LINE in prompt for prompt in prompts)
    assert len(without) == len(with_ideas) == NUM_TRAJECTORIES
    assert not any(one.ideas for one in without)
    assert 2 * len(tried(without)) < len(tried(with_ideas))
    lengths = [sum(len(one.steps) for one in found) / NUM_TRAJECTORIES for found in (without, with_ideas)]
    assert abs(lengths[0] - lengths[1]) < 0.5  # as much to learn from
