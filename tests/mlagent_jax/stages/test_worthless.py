"""The stage collect with an expert that answers without text or without actions: no such collection is done."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.reporting.remarks import remarks
from mlagent_jax.reporting.stage_remarks import RULES
from mlagent_jax.run.context import RunContext
from mlagent_jax.run.endpoints import Endpoints
from mlagent_jax.run.run_dir import RunDir
from mlagent_jax.stages.collect import STAGE
from mlagent_jax.stages.stage import StageContext
from mlagent_jax.tracking.progress import Reporter
from rollout.environment.environment import Environment
from rollout.errors import EndpointRefused, WorthlessResult
from rollout.executor import Scheduler
from rollout.options import Observation
from rollout.runtime.event_loop import EventLoopThread
from rollout.runtime.timeline import Timeline
from rollout.scripted.coder import ScriptedCoder
from rollout.storage.blob_store import BlobStore
from rollout.storage.trajectories import read_trajectories
from rollout.types import Executor
from tasks.registry import find
from tasks.task import Task


@pytest.fixture
def collect(tmp_path: Path) -> Iterator[Callable[..., dict]]:
    """A function that runs the stage in `tmp_path/run` with the expert at an address, and returns its figures."""
    public, private = tmp_path / "public", tmp_path / "private"
    for folder, name in ((public, "train.csv"), (public, "test.csv"), (private, "answers.csv")):
        folder.mkdir(exist_ok=True)
        (folder / name).write_text("id,target\n0,1\n")
    script = (find("customer_churn").folder / "train.py").read_text()
    task = Task(
        *("churn", "tabular-classification", "held_in", "accuracy", "maximize", 0.5, 0.5, 1.0, "all", "Do it.", script),
        *(public, private),
    )

    def run(address: str, *settings: str, num: int = 4) -> dict:
        model = ["expert.kind=endpoint", f"expert.base_url={address}", "expert.model=some-model", "sft.wordings=1"]
        model += ["coder.kind=endpoint", f"coder.base_url={address}", "coder.model=some-model"]
        model += ["expert.api_key_env=null", "ideas.source=none", f"collect.num_trajectories={num}"]
        config = load_config(None, [*model, "collect.max_steps=2", *settings])
        run_dir = RunDir(tmp_path / "run")
        run_dir.root.mkdir(exist_ok=True)
        store = BlobStore(tmp_path / "blobs")
        with (
            Timeline(run_dir.timeline) as timeline,
            EventLoopThread() as event_loop,
            Endpoints(config.expert, config.coder, run_dir.exchanges, event_loop) as endpoints,
        ):
            environment = Environment(
                store, cast(Executor, None), ScriptedCoder(), Observation(), show_script=False
            )  # nothing is run
            context = RunContext(
                *({"churn": task}, environment, event_loop, 1, 2, timeline, Scheduler(), endpoints, None)
            )
            return STAGE.run(StageContext(config, run_dir, Reporter(), open_context=context))

    yield run


def null_content(body: dict) -> dict:
    message = {"role": "assistant", "content": None, "reasoning_content": "I would standardize the columns."}
    return {"choices": [{"message": message, "finish_reason": "stop"}]}


def test_a_reasoning_model_without_content_stops_the_collection(collect, chat_server) -> None:
    with chat_server(null_content).serving() as server:
        with pytest.raises(EndpointRefused, match="5 of the last 5 answers of the expert have no text.*reasoning"):
            collect(server.address)
        assert len(server.asked) == 5


def test_a_reasoning_model_without_content_is_not_done_even_after_two_answers(collect, chat_server) -> None:
    with chat_server(null_content).serving() as server:
        with pytest.raises(WorthlessResult, match="2 of 2 responses are no valid action"):
            collect(server.address, num=1)


def test_an_expert_without_actions_is_told_and_can_be_accepted(collect, chat_server, tmp_path: Path) -> None:
    with chat_server(lambda body: "I would standardize the columns.").serving() as server:
        with pytest.raises(WorthlessResult, match="8 of 8 responses are no valid action.*mlagent data view") as stop:
            collect(server.address)
        assert "\n" not in str(stop.value) and "collect.max_invalid_share=1" in str(stop.value)
        assert len(read_trajectories(tmp_path / "run" / "trajectories")) == 4
        num_asked = len(server.asked)
        figures = collect(server.address, "collect.max_invalid_share=1")
        assert len(server.asked) == num_asked  # the trajectories were kept
    said = [remark.text for remark in remarks(RULES["collect"], figures) if remark.is_warning]
    assert said[0].startswith("8 of 8 responses are no valid action: the policy learns to answer like this")
    assert said[1].startswith("4 of 4 trajectories have no valid submission")


def test_the_cause_is_said_if_the_token_limit_cut_every_answer(collect, chat_server) -> None:
    def cut(body: dict) -> dict:
        return {"choices": [{"message": {"content": "Reflection: I would"}, "finish_reason": "length"}]}

    with chat_server(cut).serving() as server:
        with pytest.raises(
            WorthlessResult, match="8 of 8 answers of the expert were cut by the token limit: raise exp"
        ):
            collect(server.address)


def test_what_the_rules_of_the_collection_name_is_counted(collect, chat_server) -> None:
    with chat_server(lambda body: "I would standardize the columns.").serving() as server:
        figures = collect(server.address, "collect.max_invalid_share=1")
    figures["coder"] = figures["expert"]
    for rule in RULES["collect"]:
        for name in (rule.num, *rule.total):
            section, _, key = name.rpartition(".")
            assert key in (figures[section] if section else figures), name


def test_the_threshold_can_change_without_a_new_collection() -> None:
    assert "collect.max_invalid_share" not in STAGE.settings and "collect.num_trajectories" in STAGE.settings
