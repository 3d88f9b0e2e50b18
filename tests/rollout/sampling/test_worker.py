"""The rollouts of a finished update come from its journal alone, and a journal that lacks one is named."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from rollout.errors import CorruptRecord
from rollout.sampling.experience import Experience
from rollout.sampling.rollouts import RolloutSpec
from rollout.sampling.state_pool import PoolState, StatePool
from rollout.sampling.worker import RolloutWorker
from tasks.prompt import problem_text
from tasks.reward import PAPER
from tasks.state import State


def timeless(experiences: list[Experience]) -> list[Experience]:
    return [replace(one, seconds=0.0) for one in experiences]


def make_worker(toys, folder: Path, policy, num_states: int, num_samples: int) -> tuple[RolloutWorker, list[PoolState]]:
    """Return a worker whose journals are in a folder, and the equal states of its pool."""
    snapshot, state = toys.environment.start(toys.instance), State(problem_text(toys.instance))
    prompt = toys.tokenizer.prompt_ids(state)
    states = [PoolState(f"t{i}", 0, state, snapshot, toys.instance, prompt) for i in range(num_states)]
    worker = RolloutWorker(
        RolloutSpec(num_samples, 5, None, PAPER),
        *(toys.environment, policy, toys.tokenizer, StatePool(states), folder),
        *(num_states, 1, None, asyncio.Semaphore(4), 0.1),
    )
    return worker, states


def test_a_finished_update_is_recalled_and_never_sampled_again(toys, tmp_path: Path):
    policy = toys.policy(["nonsense"])
    worker, states = make_worker(toys, tmp_path, policy, num_states=2, num_samples=3)
    acted = asyncio.run(worker.act(states, 7))
    num_calls, path = len(policy.calls), tmp_path / "00007.jsonl"
    assert timeless(asyncio.run(worker.recall(states, 7))) == timeless(acted) and len(policy.calls) == num_calls
    lines = path.read_bytes().splitlines(keepends=True)
    for content in (lines[:-1], []):
        path.write_bytes(b"".join(content))
        with pytest.raises(CorruptRecord, match=r"00007\.jsonl lacks actions of a finished update"):
            asyncio.run(worker.recall(states, 7))
    assert len(policy.calls) == num_calls


def test_a_changed_digit_in_the_journal_is_named_with_its_line(toys, tmp_path: Path):
    worker, states = make_worker(toys, tmp_path, toys.policy(["nonsense"]), num_states=1, num_samples=2)
    asyncio.run(worker.act(states, 0))
    path = tmp_path / "00000.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"reward":-1.0', b'"reward":-2.0', 1))
    with pytest.raises(CorruptRecord, match=r"00000\.jsonl line 1 is damaged.*with `sed -i 1d .*`"):
        asyncio.run(worker.act(states, 0))
