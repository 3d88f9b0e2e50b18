"""The states that PPO starts from: what is left out of them is counted, and nothing left is an error with its cause."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.run.context import RunContext
from mlagent_jax.stages.ppo import make_pool
from rollout.dataset.selection import choose, write_selection
from rollout.dataset.sharegpt import read_sharegpt
from rollout.options import Select
from rollout.storage.run_layout import RunLayout
from rollout.storage.trajectories import write_trajectories
from rollout.tokenizer.chat import ChatTokenizer
from rollout.types import Snapshot, Trajectory
from tasks import action as grammar
from tasks.action import Action
from tasks.response import FIELDS, format_response
from tasks.state import State

ANSWER = format_response(dict.fromkeys(FIELDS[:4], "Fine."), Action(grammar.FINAL_ANSWER, {"final_answer": "a"}))
WORKSPACE = Snapshot({"a.py": "00"}, 0.5, None, "a.py", 0.5)
PROMPT_TOKENS = 100


class Counting(ChatTokenizer):
    """A tokenizer whose prompts all have `PROMPT_TOKENS` tokens."""

    def __init__(self) -> None:
        pass

    def prompts(self, state: State) -> tuple[list[int], list[int]]:
        return [0] * PROMPT_TOKENS, [PROMPT_TOKENS] * (len(state.turns) + 1)


class OneTask(RunContext):
    """A context that knows a task and nothing else."""

    def __init__(self) -> None:
        object.__setattr__(self, "tasks", {"toy": None})


@pytest.fixture
def pool_of(tmp_path: Path) -> Callable[..., tuple[Any, dict[str, int]]]:
    """A function that returns the pool of as many imported and collected trajectories, and what was left out."""
    turns = [{"from": "human", "value": "Do it."}, {"from": "gpt", "value": ANSWER}]
    (tmp_path / "data.jsonl").write_text(json.dumps({"conversations": turns, "task": "toy"}))
    (imported,) = read_sharegpt(tmp_path / "data.jsonl")
    (step,) = imported.steps
    collected = replace(imported, steps=(replace(step, before=WORKSPACE, after=WORKSPACE),))

    def make(num_imported: int, num_collected: int, *settings: str) -> tuple[Any, dict[str, int]]:
        layout = RunLayout(tmp_path)
        found: list[Trajectory] = [replace(imported, trajectory_id=f"i{number}") for number in range(num_imported)]
        found += [replace(collected, trajectory_id=f"c{number}") for number in range(num_collected)]
        write_trajectories(layout.trajectories / "part-00000.parquet", found)
        rules = Select(max_similarity=None, validation_share=0.5)
        write_selection(layout.selection, choose(layout.trajectories, rules, {}, 0), rules, 0)
        return make_pool(load_config(None, [*settings]), layout, OneTask(), Counting())

    return make


def test_trajectories_without_workspaces_are_counted(pool_of: Callable) -> None:
    pool, counts = pool_of(2, 3)
    assert len(pool) == 3 and counts == {"num_selected": 5, "num_imported": 2, "num_long_states": 0}


def test_imported_trajectories_alone_are_no_pool(pool_of: Callable) -> None:
    with pytest.raises(ValueError, match="none of the 4 selected trajectories has a workspace.*only stage=sft"):
        pool_of(4, 0)


def test_states_that_leave_no_room_are_counted_and_named_as_the_cause(pool_of: Callable) -> None:
    with pytest.raises(
        ValueError, match="none of 3 states leaves room for ppo.max_response_tokens=50 in server.max_mod"
    ):
        pool_of(0, 3, f"server.max_model_len={PROMPT_TOKENS + 49}", "ppo.max_response_tokens=50")
