"""The environment on its real parts: a catalog task, the recipe coder, the sandbox, the offline expert."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rollout.dataset.augmentation import wordings
from rollout.environment.environment import Environment
from rollout.executor import CachedExecutor, open_executor
from rollout.executor.interpreter import TASK_PYTHON
from rollout.options import ExecutorOptions, Observation
from rollout.runtime.event_loop import EventLoopThread
from rollout.sampling.collection import EpisodePlan, collect, plan_collection
from rollout.sampling.evaluation import InitialScriptActor, plan_evaluation, summarize
from rollout.sampling.state_pool import StatePool
from rollout.scripted.coder import ScriptedCoder
from rollout.scripted.expert import ScriptedExpert
from rollout.scripted.wording import reword_response
from rollout.storage.blob_store import BlobStore
from rollout.storage.trajectories import read_trajectories
from rollout.task_tools.preparation import prepare_all
from rollout.types import Actor, Trajectory
from tasks import action as grammar
from tasks.feedback import Outcome
from tasks.naming import Names
from tasks.registry import find, load
from tasks.response import parse_response
from tasks.task import Instance, Task

NAMES = Names("maple", "birch_train.csv", "birch_test.csv", "cedar.py")


@dataclass
class Real:
    """The environment under test and what it is made of."""

    background: EventLoopThread
    executor: CachedExecutor
    environment: Environment
    task: Task


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    folder = tmp_path_factory.mktemp("real")
    prepare_all([find("house_price")], folder / "data", TASK_PYTHON)
    store = BlobStore(folder / "blobs")
    options = ExecutorOptions(python=str(TASK_PYTHON))
    with open_executor(options, store, folder / "cache") as opened, EventLoopThread() as background:
        environment = Environment(store, opened.executor, ScriptedCoder(), Observation(), show_script=False)
        yield Real(background, opened.executor, environment, load("house_price", folder / "data"))


def act(real: Real, toys, name: str, **arguments: object):
    instance = Instance(real.task, NAMES)
    response = toys.respond(name, **arguments)
    start = real.environment.start(instance)
    return real.background.run(real.environment.step(instance, start, response))


def run(real: Real, folder: Path, plans: list[EpisodePlan], actor: Actor) -> list[Trajectory]:
    coro = collect(folder, plans, real.environment, actor, max_steps=4, max_seconds=300.0, num_concurrent=2)
    real.background.run(coro)
    return read_trajectories(folder)


def test_the_initial_script_scores_what_the_task_says(real: Real, toys):
    result = act(real, toys, grammar.EXECUTE, script_name="cedar.py")
    assert result.feedback.outcome is Outcome.NON_EDIT
    assert result.feedback.metric == pytest.approx(real.task.m_init)
    assert result.feedback.validation == pytest.approx(real.task.validation_init, abs=1e-4)


def test_an_edit_by_instruction_improves_the_script(real: Real, toys):
    arguments = {"script_name": "cedar.py", "edit_instruction": "Use a random forest.", "save_name": "oak.py"}
    result = act(real, toys, grammar.EDIT, **arguments)
    assert result.feedback.outcome is Outcome.EDIT, result.feedback.text
    assert result.feedback.metric is not None
    assert real.task.gain(result.feedback.metric) > 0.1
    assert result.after.best_script == "oak.py"
    assert "RandomForestRegressor" in result.feedback.text
    assert len(result.feedback.text) < 500


def test_an_instruction_nobody_understands_edits_nothing(real: Real, toys):
    arguments = {"script_name": "cedar.py", "edit_instruction": "Sing a song.", "save_name": "oak.py"}
    assert act(real, toys, grammar.EDIT, **arguments).feedback.outcome is Outcome.NOT_EDITED


def test_the_expert_collects_states_to_train_on_and_their_retellings_parse(real: Real, toys, tmp_path: Path):
    plans = plan_collection([real.task], 2, 0, lambda task, rng: [])
    real.background.run(
        collect(
            tmp_path,
            plans,
            real.environment,
            ScriptedExpert(max_steps=4),
            max_steps=4,
            max_seconds=300,
            num_concurrent=2,
        )
    )
    trajectories = read_trajectories(tmp_path)
    assert {trajectory.end for trajectory in trajectories} <= {"final_answer", "step_limit"}
    outcomes = [step.feedback.outcome for trajectory in trajectories for step in trajectory.steps]
    assert Outcome.INVALID not in outcomes
    assert Outcome.EDIT in outcomes
    pool = StatePool.cut(trajectories, {real.task.name: real.task}, 4, toys.tokenizer)
    assert {state.depth for state in pool.states} >= {0, 1}
    for trajectory in trajectories:
        for state in wordings(trajectory, 3, 0, reword_response):
            for turn, step in zip(state.turns, trajectory.steps, strict=True):
                action = parse_response(turn.response).action
                assert action.name == step.action  # type: ignore[union-attr]


def test_episodes_that_differ_in_names_alone_share_their_runs(real: Real, tmp_path: Path):
    misses = real.executor.misses
    plans = plan_evaluation([real.task], 4, seed=0)
    trajectories = run(real, tmp_path, plans, InitialScriptActor())
    result = summarize(trajectories, [real.task], seed=0)
    assert result["held_in_relative_gain"]["mean"] == pytest.approx(0.0)
    assert result["held_in"]["submitted_share"] == 1.0
    assert real.executor.misses - misses <= 1
