"""Single actions from states of the pool: done, rewarded, journalled."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rollout.errors import CorruptRecord, ExecutorError, ServerError
from rollout.sampling.experience import Experience, reward_figures
from rollout.sampling.rollouts import RolloutSpec, roll_out
from rollout.sampling.state_pool import PoolState
from rollout.storage.journal import Journal
from tasks.feedback import Outcome
from tasks.prompt import problem_text
from tasks.reward import PAPER, Rules
from tasks.state import State


@pytest.fixture
def states(toys) -> list[PoolState]:
    snapshot = toys.environment.start(toys.instance)
    state = State(problem_text(toys.instance))
    return [PoolState(f"t{i}", 0, state, snapshot, toys.instance, toys.tokenizer.prompt_ids(state)) for i in range(3)]


def run(toys, policy, states, rules: Rules = PAPER, **options: Any) -> list[Experience]:
    spec = RolloutSpec(num_samples=4, seed=5, rules=rules)
    return asyncio.run(roll_out(spec, toys.environment, policy, toys.tokenizer, states, **options))


def timeless(experiences: list[Experience]) -> list[Experience]:
    return [replace(one, seconds=0.0) for one in experiences]


def test_every_sample_is_rewarded_in_order_with_its_tokens(toys, states: list[PoolState]):
    good = toys.edit("cedar.py", "oak.py", correct=9, validation=0.8)
    policy = toys.policy(["nonsense", good])
    experiences = run(toys, policy, states)
    assert [(one.trajectory_id, one.sample) for one in experiences] == [
        (f"t{i}", j) for i in range(3) for j in range(4)
    ]
    for one in experiences:
        said = toys.tokenizer.decode(one.response_ids)
        assert (one.reward, one.outcome) == ((-1.0, Outcome.INVALID) if said == "nonsense" else (0.8, Outcome.EDIT))
        assert one.prompt_ids == tuple(toys.tokenizer.prompt_ids(states[0].state))
        assert (len(one.logprobs), one.policy_version) == (len(one.response_ids), 3)
        assert one.instruction == ("" if said == "nonsense" else '{"correct": 9, "validation": 0.8}')
    assert reward_figures(experiences) == {
        "masked_share": 0.0,
        "redone_share": 0.0,
        "cut_share": 0.0,
        "mean": pytest.approx(-0.1),
        "std": pytest.approx(0.9),
        "edit_mean": pytest.approx(0.8),
        "repeated_share": 0.0,
        "invalid_share": 0.5,
        "error_share": 0.0,
        "not_edited_share": 0.0,
        "non_edit_share": 0.0,
        "corner_share": 0.0,
        "edit_share": 0.5,
        "lenient_share": 0.0,
    }
    decorated = run(toys, toys.policy(["nonsense", good, good.replace("Thought:", "**Thought:**")]), states)
    assert reward_figures(decorated)["lenient_share"] == pytest.approx(
        sum("**" in toys.tokenizer.decode(one.response_ids) for one in decorated)
        / sum(one.outcome is Outcome.EDIT for one in decorated)
    )
    assert 0 < reward_figures(decorated)["lenient_share"] < 1
    v1 = run(toys, policy, states, rules=Rules(version="v1"))
    assert {round(one.reward or 0.0, 6) for one in v1} == {0.0, 1.0}


def test_equal_responses_in_one_state_are_done_once(toys, states: list[PoolState]):
    run(toys, toys.policy([toys.edit("cedar.py", "oak.py", correct=9)]), states)
    assert len(toys.executor.jobs) == len(states)


def test_an_instruction_that_stands_in_the_state_is_a_repeat(toys, states: list[PoolState]):
    again = toys.edit("cedar.py", "oak.py", correct=9, validation=0.8)
    spaced = again.replace("correct", "CORRECT")
    (edit, *_) = run(toys, toys.policy([toys.edit("cedar.py", "ash.py", correct=9, validation=0.8)]), states[:1])
    assert edit.reached is not None
    there = states[0].then(replace(edit.reached, after=states[0].snapshot), toys.tokenizer)
    for state, repeated, earned in ((states[0], False, 0.8), (there, True, 0.0)):
        (one, *_) = run(toys, toys.policy([again]), [state], rules=Rules(repeats=False))
        assert (one.repeated, one.reward) == (repeated, pytest.approx(earned))
    (worded, *_) = run(toys, toys.policy([spaced]), [there])
    assert worded.repeated
    (paper, *_) = run(toys, toys.policy([again]), [there])
    assert paper.repeated and paper.reward == pytest.approx(0.8)
    assert reward_figures([paper])["repeated_share"] == 1.0


def test_what_the_infrastructure_lost_is_masked(toys, states: list[PoolState]):
    toys.executor.faults = [ExecutorError("lost")] * 2
    experiences = run(toys, toys.policy([toys.edit("cedar.py", "oak.py", correct=9)]), states[:1])
    assert {(one.reward, one.outcome) for one in experiences} == {(None, Outcome.INFRASTRUCTURE)}
    assert reward_figures(experiences) == {"masked_share": 1.0, "redone_share": 0.0, "cut_share": 0.0}


def test_lost_actions_run_again_with_their_responses_only_if_that_is_asked_for(toys, states, tmp_path: Path):
    policy = toys.policy(["nonsense", toys.edit("cedar.py", "oak.py", correct=9, validation=0.8)])
    toys.executor.faults = [ExecutorError("lost")] * 4  # once for each state, and again for the first
    found = []
    for redo in (False, False, True, False):
        with Journal(tmp_path / "actions.jsonl") as journal:
            found.append(run(toys, policy, states, journal=journal, redo_lost=redo))
        policy.version += 1  # nothing is sampled again, or its version would be another one
    first, again, redone, last = map(timeless, found)
    lost = [index for index, one in enumerate(first) if one.reward is None]
    assert len(lost) == 2 and again == first and last == redone
    for index, (before, after) in enumerate(zip(first, redone, strict=True)):
        if index in lost:
            assert (before.failure, before.attempt) == ("ExecutorError: lost", 1)
            assert (after.reward, after.failure, after.attempt) == (pytest.approx(0.8), "", 2)
            assert after.training_sample() == replace(before, reward=after.reward).training_sample()
        else:
            assert after == before
    assert reward_figures(redone)["redone_share"] == pytest.approx(len(lost) / len(redone))
    assert len((tmp_path / "actions.jsonl").read_bytes().splitlines()) == len(first) + len(lost), "all records stay"


def test_an_interrupted_update_takes_what_is_journalled_and_redoes_the_rest(toys, states, tmp_path: Path):
    policy = toys.policy(["nonsense", toys.edit("cedar.py", "oak.py", correct=9, validation=0.8)])
    path = tmp_path / "actions.jsonl"
    with Journal(path) as journal:
        whole = run(toys, policy, states, update=2, journal=journal)
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 12
    path.write_bytes(b"".join(lines[:5]))
    policy.version = 4
    with Journal(path) as journal:
        resumed = run(toys, policy, states, update=2, journal=journal)
    assert [one.policy_version for one in resumed].count(3) == 5
    assert timeless([replace(one, policy_version=3) for one in resumed]) == timeless(whole)
    policy.calls.clear()
    with Journal(path) as journal:
        assert run(toys, policy, states, update=2, journal=journal) == resumed
        assert policy.calls == []
        for others in (states[::-1], states[:2]):
            with pytest.raises(CorruptRecord, match="actions of other states"):
                run(toys, policy, others, update=2, journal=journal)


def test_a_server_that_does_not_answer_is_not_hidden(toys, states: list[PoolState]):
    class Silent:
        async def sample(self, prompt_ids, *, num_samples, seed):
            raise ServerError("no answer")

    with pytest.raises(ServerError, match="no answer"):
        run(toys, Silent(), states)


def test_a_journal_of_another_schema_is_refused(toys, states: list[PoolState], tmp_path: Path):
    with Journal(tmp_path / "actions.jsonl") as journal:
        journal.append({"state": 0, "experience": {"trajectory_id": "t0#1", "reward": 0.5, "sample": 0, "depth": 0}})
        with pytest.raises(CorruptRecord, match=r"actions.jsonl has records of schema 1, expected 2: .*; remove it"):
            run(toys, toys.policy(["nonsense"]), states, journal=journal)
