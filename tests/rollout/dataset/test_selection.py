"""Which trajectories are trained on: what each filter drops, what is balanced, split, and written down."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rollout.dataset import filters
from rollout.dataset.selection import choose, digest, read_selection, write_selection
from rollout.errors import CorruptRecord
from rollout.options import Select
from rollout.storage.trajectories import read_trajectories, write_trajectories
from rollout.types import Snapshot, Step, Trajectory
from tasks.action import EDIT, FINAL_ANSWER
from tasks.feedback import Feedback, Outcome
from tasks.naming import Names

FINAL = "final_answer"
NAMES = Names("maple", "data_oak_train.csv", "data_oak_test.csv", "run_sky.py")
DIRECTIONS = {"price": "minimize", "churn": "maximize"}
START = Snapshot({"run_sky.py": "00"}, 0.5, None, "run_sky.py", 0.5)
KEEP_ALL = Select(filters=(), max_similarity=None)


def step(instruction: str, score: float | None, before: Snapshot = START, outcome: Outcome = Outcome.EDIT) -> Step:
    """An edit after which the last submission scores so much; None: it left none."""
    after = replace(before, last_submission=score, metric=before.metric if score is None else score)
    arguments = {"script_name": "run_sky.py", "edit_instruction": instruction, "save_name": "run_sea.py"}
    response = f"Thought: better.\nAction Input: {json.dumps(arguments)}"
    return Step(response, EDIT, arguments, Feedback(outcome, "Saved as run_sea.py.", score), before, after, 1.0)


def trajectory(
    name: str, *steps: Step, task: str = "churn", ideas: tuple[str, ...] = (), end: str = FINAL
) -> Trajectory:
    return Trajectory(name, task, 0, NAMES, "Predict it.", ideas, steps, end)


def stored(folder: Path, trajectories: Sequence[Trajectory]) -> Path:
    write_trajectories(folder / "part-00000.parquet", trajectories)
    return folder


def varied(count: int, task: str = "churn", score: float = 0.9) -> list[Trajectory]:
    """Trajectories that have no words in common."""
    return [trajectory(f"{task}-{score}-{i:02d}", step(f"a{i} b{i} c{i} d{i}", score), task=task) for i in range(count)]


def test_what_each_filter_keeps():
    good, invalid = (
        trajectory("good", step("Use trees.", 0.9)),
        trajectory("bad", step("", None, START, Outcome.INVALID)),
    )
    assert filters.acted(good) and not filters.acted(trajectory("none"))
    assert filters.valid_format(good) and not filters.valid_format(invalid)
    assert filters.ended(good) and not filters.ended(trajectory("cut", step("Use trees.", 0.9), end="time_limit"))
    assert filters.edited(good) and not filters.edited(invalid)
    length = len("Predict it.") + len(good.steps[0].response) + len("Saved as run_sea.py.")
    assert filters.within(length)(good) and not filters.within(length - 1)(good)


@pytest.mark.parametrize(("task", "better", "worse"), [("churn", 0.6, 0.4), ("price", 0.4, 0.6)])
def test_what_is_improved_goes_by_the_direction_of_the_task(task: str, better: float, worse: float):
    def outcome(score: float | None) -> str:
        return filters.outcome_of(trajectory("x", step("Use trees.", score), task=task), DIRECTIONS)

    assert [outcome(score) for score in (better, 0.5, worse, None)] == ["improved", "same", "worse", "no_submission"]
    assert filters.improved(DIRECTIONS)(trajectory("x", step("Use trees.", better), task=task))
    assert not filters.improved(DIRECTIONS)(trajectory("x", step("Use trees.", worse), task=task))
    with pytest.raises(ValueError, match="unknown task 'chess' of a trajectory; name its folder in tasks.paths"):
        filters.outcome_of(trajectory("x", step("Use trees.", better), task="chess"), DIRECTIONS)


@pytest.mark.parametrize(
    ("instruction", "leaks"),
    [
        ("Use trees.", False),  # quotes the short idea, which is what carrying it out looks like
        ("As one of these ideas says, use trees.", True),
        ("I follow idea (2).", True),
        ("Here: the columns have different units, so bring them to Zero  mean and unit variance!", True),
        ("Bring the columns to zero mean.", False),
        ("A new idea of mine.", False),
    ],
)
def test_a_response_that_gives_away_what_the_expert_was_shown_is_a_leak(instruction: str, leaks: bool):
    ideas = ("Use trees.", "The columns have different units, so bring them to zero mean and unit variance.")
    assert filters.no_leak(trajectory("x", step(instruction, 0.9), ideas=ideas)) is not leaks


def test_what_was_done_before_in_other_names_is_no_news():
    keep = filters.distinct(0.9)
    first = trajectory("a", step("Use a random forest with many trees.", 0.9))
    assert keep(first)
    other_names = {"script_name": "run_oak.py", "save_name": "run_elm.py"}
    again = replace(first.steps[0], arguments={**first.steps[0].arguments, **other_names})
    assert not keep(replace(first, trajectory_id="b", steps=(again,), names=replace(NAMES, script="run_oak.py")))
    assert keep(replace(first, trajectory_id="c", task="price"))
    assert keep(trajectory("d", step("Use a linear model instead.", 0.9)))
    assert keep(trajectory("e", first.steps[0], step("Train it longer on all rows.", 0.95)))


def test_without_a_task_the_problem_says_what_is_alike_and_the_answer_where_nothing_else_was_done():
    keep = filters.distinct(0.9)
    first = trajectory("a", step("Use trees.", 0.9), task="")
    assert keep(first) and keep(replace(first, trajectory_id="b", problem="Predict something else."))
    assert not keep(replace(first, trajectory_id="c"))
    for answer in ("It is the first of all.", "Nothing of this kind."):
        said = replace(first.steps[0], action=FINAL_ANSWER, arguments={"final_answer": answer})
        assert keep(replace(first, trajectory_id=answer, steps=(said,)))


def test_a_leak_is_found_however_its_letters_are_spelt():
    idea = "Don’t trust the order of rows, so shuffle them well before the split."
    leak = step(idea, 0.9)
    spelt = replace(leak, response=f"Action Input: {json.dumps(leak.arguments)}")
    assert "\\u2019" in spelt.response
    assert not filters.no_leak(trajectory("x", spelt, ideas=(idea,)))


def test_equal_ids_are_refused_by_name(tmp_path: Path):
    stored(tmp_path, [*varied(4), varied(1)[0]])
    with pytest.raises(ValueError, match=r"has two trajectories churn-0.9-00; give each its own id"):
        choose(tmp_path, KEEP_ALL, DIRECTIONS, seed=0)


def test_a_selection_says_what_every_filter_dropped(tmp_path: Path):
    found = [*varied(8), trajectory("none"), trajectory("leak", step("These ideas are good.", 0.7))]
    found += [replace(one, trajectory_id=f"{one.trajectory_id}-again") for one in varied(2)]
    selection = choose(stored(tmp_path, found), Select(validation_share=0.25), DIRECTIONS, seed=0)
    assert {each["filter"]: each["dropped"] for each in selection.report} == {
        "acted": 1,
        "no_leak": 1,
        "max_similarity": 2,
    }
    assert selection.report[1]["first"] == ["leak"]
    assert selection.balance == {"churn": {"improved": 8}}
    assert len(selection.validation) == 2 and len(selection.train) == 6
    assert not set(selection.validation) & set(selection.train)


def test_what_is_too_much_goes_evenly_over_tasks_and_outcomes(tmp_path: Path):
    many = [*varied(30), *varied(9, score=0.1), *varied(3, score=0.5), *varied(4, task="price", score=0.2)]
    selection = choose(stored(tmp_path, many), replace(KEEP_ALL, max_trajectories=16), DIRECTIONS, seed=1)
    assert selection.balance == {
        "churn": {"improved": 5, "same": 3, "worse": 4},
        "price": {"improved": 4},
    }
    assert selection.report[-1] == {"filter": "max_trajectories", "dropped": 30, "first": selection.report[-1]["first"]}
    other = choose(tmp_path, replace(KEEP_ALL, max_trajectories=16), DIRECTIONS, seed=2)
    assert other.balance == selection.balance and other.identity != selection.identity


def test_each_task_is_held_out_in_its_share(tmp_path: Path):
    stored(tmp_path, [*varied(30), *varied(10, task="price")])
    selection = choose(tmp_path, replace(KEEP_ALL, validation_share=0.1), DIRECTIONS, seed=0)
    assert Counter(name.split("-")[0] for name in selection.validation) == {"churn": 3, "price": 1}
    small = [one for name in "abcdefghij" for one in varied(6, task=name)]
    small_tasks = dict.fromkeys("abcdefghij", "maximize")
    of_small = choose(stored(tmp_path / "small", small), replace(KEEP_ALL, validation_share=0.08), small_tasks, seed=0)
    assert len(of_small.validation) == 5 == len({name[0] for name in of_small.validation})
    few = choose(stored(tmp_path / "few", varied(3)), replace(KEEP_ALL, validation_share=0.01), DIRECTIONS, seed=0)
    assert len(few.validation) == 1


def test_too_little_is_refused_and_says_who_dropped_it(tmp_path: Path):
    stored(tmp_path, [trajectory("a", step("Use trees.", 0.9)), trajectory("none"), trajectory("nil")])
    with pytest.raises(ValueError, match="1 trajectories of .* expected at least 2; acted dropped 2; loosen"):
        choose(tmp_path, Select(), DIRECTIONS, seed=0)


def test_a_manifest_names_its_data_to_the_byte(tmp_path: Path):
    found = varied(6)
    selection = choose(stored(tmp_path, found), KEEP_ALL, DIRECTIONS, seed=0)
    assert {**selection.train, **selection.validation} == {one.trajectory_id: digest(one) for one in found}
    write_selection(tmp_path / "selection.json", selection, KEEP_ALL, 0)
    assert read_selection(tmp_path / "selection.json") == selection
    assert list(selection.read(tmp_path)) == read_trajectories(tmp_path) == found
    edited = replace(found[2], steps=(replace(found[2].steps[0], response="Thought: other."),))
    stored(tmp_path, [*found[:2], edited, *found[3:]])
    with pytest.raises(CorruptRecord, match="churn-0.9-02 has changed since its selection"):
        list(selection.read(tmp_path))
    stored(tmp_path, found[:5])
    with pytest.raises(CorruptRecord, match="churn-0.9-05 was selected and is gone"):
        list(selection.read(tmp_path))
    assert (
        choose(stored(tmp_path, [*found[:2], edited, *found[3:]]), KEEP_ALL, DIRECTIONS, 0).identity
        != selection.identity
    )


def test_a_manifest_that_was_tampered_with_is_refused(tmp_path: Path):
    selection = choose(stored(tmp_path, varied(6)), KEEP_ALL, DIRECTIONS, seed=0)
    path = tmp_path / "selection.json"
    write_selection(path, selection, KEEP_ALL, 0)
    record = json.loads(path.read_text())
    record["train"].popitem()
    path.write_text(json.dumps(record))
    with pytest.raises(CorruptRecord, match="selection.json is damaged, or not a selection"):
        read_selection(path)
