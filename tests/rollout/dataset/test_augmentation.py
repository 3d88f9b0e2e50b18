"""One trajectory in other names and other words."""

import random
import re
from dataclasses import replace

import pytest

from rollout.dataset.augmentation import draw_renaming, rename, reword_trajectory, wordings
from rollout.types import Snapshot, Step, Trajectory
from tasks.feedback import Feedback, Outcome
from tasks.naming import Names, is_held_out
from tasks.state import State, Turn

SNAPSHOT = Snapshot({}, 0.5, None, "oak.py", 0.5)


def step(response: str, feedback: str, wording: str = "") -> Step:
    return Step(response, "List Files", {}, Feedback(Outcome.NON_EDIT, feedback), SNAPSHOT, SNAPSHOT, 0.0, wording)


@pytest.fixture
def trajectory() -> Trajectory:
    return Trajectory(
        trajectory_id="0-00001",
        task="toy",
        seed=0,
        names=Names("forest", "fern_train.csv", "fern_test.csv", "oak.py"),
        problem="Research problem forest: predict from fern_train.csv for fern_test.csv.\nBest so far: oak.py 0.5000",
        ideas=(),
        steps=(
            step("Try a random forest in oak.py, save as plum.py", 'read_csv("fern_train.csv")', "meant"),
            step("Edit plum.py, not lost.py", "Files: fern_test.csv, oak.py, plum.py; /env/lib/base.py"),
        ),
        end="step_limit",
    )


def texts(state: State) -> str:
    return "\n".join([state.problem, *(f"{turn.response}\n{turn.feedback}" for turn in state.turns)])


def test_all_names_change_consistently_and_ordinary_words_do_not(trajectory: Trajectory):
    state = trajectory.state()
    mapping = draw_renaming(trajectory, state, random.Random(2))
    renamed = rename(state, mapping)
    new = texts(renamed)
    for old in ("fern_", "oak.py", "plum.py", "lost.py", "problem forest"):
        assert old not in new
    assert "random forest" in new
    assert "/env/lib/base.py" in new
    assert new.count(mapping["oak.py"]) == texts(state).count("oak.py")
    pairs = [re.search(r"([a-z]+_[a-z]+)(_train.csv|_test.csv|.py|)$", name)[1] for name in mapping.values()]
    assert not any(map(is_held_out, pairs))
    assert len(set(mapping.values())) == len(mapping)
    assert rename(renamed, {new: old for old, new in mapping.items()}) == state


def test_names_are_replaced_whole_and_at_once():
    state = State("a.py b.py ba.py a.pyc x.a.py a.py.bak a.py-2 ./a.py (a.py), a.py.", (Turn("b.py", "a.py"),))
    renamed = rename(state, {"a.py": "b.py", "b.py": "a.py"})
    assert renamed.problem == "b.py a.py ba.py a.pyc x.a.py a.py.bak a.py-2 ./b.py (b.py), b.py."
    assert renamed.turns == (Turn("a.py", "b.py"),)


def test_rewording_asks_for_other_words_where_a_meaning_is_recorded(trajectory: Trajectory):
    state = reword_trajectory(trajectory, random.Random(0), lambda meaning, rng: f"{meaning} {rng.randrange(10**6)}")
    assert state.turns[0].response.startswith("meant ")
    assert state.turns[1] == trajectory.state().turns[1]
    assert [turn.feedback for turn in state.turns] == [turn.feedback for turn in trajectory.state().turns]


def test_wordings_begin_with_the_record_and_are_seeded(trajectory: Trajectory):
    def words(meaning: str, rng: random.Random) -> str:
        return f"oak.py {rng.randrange(10**6)}"

    told = wordings(trajectory, 4, seed=1, reword_response=words)
    assert told[0] == trajectory.state()
    assert len(set(map(texts, told))) == 4
    assert told == wordings(trajectory, 4, seed=1, reword_response=words)
    assert told[1] != wordings(trajectory, 2, seed=2, reword_response=words)[1]
    other = replace(trajectory, trajectory_id="0-00002")
    assert told[1] != wordings(other, 2, seed=1, reword_response=words)[1]
