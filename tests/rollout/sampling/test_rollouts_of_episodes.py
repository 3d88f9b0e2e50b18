"""Whole episodes of the policy: what they consist of, where they end, and that they go on where they were cut off."""

import asyncio
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rollout.errors import CorruptRecord, ExecutorError
from rollout.sampling.experience import Experience
from rollout.sampling.rollouts import EpisodeLimits, RolloutSpec, roll_out
from rollout.sampling.state_pool import PoolState
from rollout.storage.journal import Journal
from tasks import action as grammar
from tasks.feedback import Outcome
from tasks.prompt import problem_text
from tasks.state import State

LIMITS = EpisodeLimits(max_steps=3, context_limit=100_000, max_response_tokens=10)


@pytest.fixture
def starts(toys) -> list[PoolState]:
    snapshot, state = toys.environment.start(toys.instance), State(problem_text(toys.instance))
    return [PoolState(f"t{i}", 0, state, snapshot, toys.instance, toys.tokenizer.prompt_ids(state)) for i in range(2)]


def run(
    toys, policy: Any, starts: list[PoolState], limits: EpisodeLimits = LIMITS, num_samples: int = 2, **options: Any
) -> list[Experience]:
    spec = RolloutSpec(num_samples, seed=5, episodes=limits)
    return asyncio.run(roll_out(spec, toys.environment, policy, toys.tokenizer, starts, **options))


def edits(toys) -> list[str]:
    return [toys.edit("cedar.py", f"oak{i}.py", correct=6 + i, validation=0.6 + i / 10) for i in range(4)]


def timeless(experiences: list[Experience]) -> list[Experience]:
    return [replace(one, seconds=0.0) for one in experiences]


def test_each_action_follows_from_the_one_before(toys, starts: list[PoolState]) -> None:
    found = run(toys, toys.policy(edits(toys)), starts)
    episodes = [(f"t{i}", j) for i in range(2) for j in range(2)]
    assert [(each.trajectory_id, each.episode, each.depth) for each in found] == [
        (*episode, depth) for episode in episodes for depth in range(3)
    ]
    for first, second in itertools.pairwise(found):
        if second.depth == 0:
            assert second.prompt_ids == tuple(toys.tokenizer.prompt_ids(starts[0].state))
            continue
        assert first.reached is not None
        said = tuple(map(ord, first.reached.response + first.reached.feedback))
        assert second.prompt_ids == first.prompt_ids + said
        assert second.reward == pytest.approx(2 * (second.metric - first.metric))  # of the half that was left to win
    draws = {
        tuple(each.response_ids for each in found if (each.trajectory_id, each.episode) == episode)
        for episode in episodes
    }
    assert len(draws) > 1


def test_an_episode_ends_with_its_answer_or_its_context(toys, starts: list[PoolState]) -> None:
    answer = toys.respond(grammar.FINAL_ANSWER, final_answer="done")
    assert [each.depth for each in run(toys, toys.policy([answer]), starts)] == [0] * 4
    start = len(toys.tokenizer.prompt_ids(starts[0].state))
    longer = replace(LIMITS, context_limit=start + LIMITS.max_response_tokens)
    assert [each.depth for each in run(toys, toys.policy(edits(toys)), starts, limits=longer)] == [0] * 4


def test_an_episode_that_lost_an_action_is_masked_as_a_whole(toys, starts: list[PoolState]) -> None:
    script = toys.executor.run
    num_runs = 0

    async def fails_later(job: Any) -> Any:
        nonlocal num_runs
        num_runs += 1
        if num_runs in (2, 3):
            raise ExecutorError("lost")
        return await script(job)

    toys.executor.run = fails_later
    found = run(toys, toys.policy(edits(toys)), starts[:1], num_samples=1)
    assert [(each.outcome, each.reward) for each in found] == [(Outcome.EDIT, None), (Outcome.INFRASTRUCTURE, None)]


def test_an_interrupted_update_goes_on_in_mid_episode(toys, starts: list[PoolState], tmp_path: Path) -> None:
    policy, path = toys.policy(edits(toys)), tmp_path / "actions.jsonl"
    with Journal(path) as journal:
        whole = run(toys, policy, starts, update=2, journal=journal)
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == len(whole) == 12
    path.write_bytes(b"".join(lines[:7]))
    policy.calls.clear()
    with Journal(path) as journal:
        assert timeless(run(toys, policy, starts, update=2, journal=journal)) == timeless(whole)
        assert len(policy.calls) == 5
        assert timeless(run(toys, policy, starts, update=2, journal=journal)) == timeless(whole)
        assert len(policy.calls) == 5
        with pytest.raises(CorruptRecord, match="actions of other states"):
            run(toys, policy, starts[::-1], update=2, journal=journal)


def test_a_lost_action_runs_again_and_its_episode_goes_on(toys, starts: list[PoolState], tmp_path: Path) -> None:
    policy, script = toys.policy(edits(toys)), toys.executor.run

    async def fails_after_one(job: Any) -> Any:
        if len(toys.executor.jobs) > 0:
            raise ExecutorError("lost")
        return await script(job)

    toys.executor.run = fails_after_one
    for mended in (False, True):
        toys.executor.run = script if mended else fails_after_one
        with Journal(tmp_path / "actions.jsonl") as journal:
            found = run(toys, policy, starts[:1], num_samples=1, journal=journal, redo_lost=mended)
        assert [each.reward is not None for each in found] == ([True] * 3 if mended else [False] * 2)
    assert [each.attempt for each in found] == [1, 2, 1]
    assert len(policy.calls) == 3, "only what follows the lost action is sampled"
