"""The page holds every trajectory as it is, in a file that needs no other and that no text of an agent can break."""

import re
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rollout.dataset.viewer import page, write_page
from rollout.types import Step, Trajectory
from tasks.action import LIST_FILES
from tasks.feedback import Outcome
from tasks.response import FIELDS, parse_response
from tasks.reward import PAPER, Rules, reward


def test_trajectories_come_out_of_the_page_as_they_went_in(
    collection: Any, decode: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "CHUNK_CHARACTERS", 20_000)
    found = decode(collection.write(tmp_path / "page.html"))
    wanted = [one for group in collection.groups.values() for one in group]
    assert len(found.chunks) > 3
    starts = [sum(map(len, found.chunks[:number])) for number in range(len(found.chunks))]
    assert found.index["chunks"] == starts
    assert len(found.trajectories) == len(wanted)
    for one, trajectory in zip(found.trajectories, wanted, strict=True):
        assert one["id"] == trajectory.trajectory_id and one["problem"] == trajectory.problem
        assert (one["task"], one["seed"], one["end"]) == (trajectory.task, trajectory.seed, trajectory.end)
        assert one["names"] == list(vars(trajectory.names).values())
        assert tuple(one["ideas"]) == trajectory.ideas
        for shown, step in zip(one["steps"], trajectory.steps, strict=True):
            check_step(shown, step)


def check_step(shown: dict[str, Any], step: Step) -> None:
    assert (shown["response"], shown["action"], shown["arguments"]) == (step.response, step.action, step.arguments)
    feedback, before, after = step.feedback, step.before, step.after
    assert (shown["outcome"], shown["feedback"]) == (feedback.outcome, feedback.text)
    assert (shown["metric"], shown["validation"]) == (feedback.metric, feedback.validation)
    assert (shown["before"], shown["after"]) == (before.metric, after.metric)
    assert (shown["best_script"], shown["best_score"]) == (after.best_script, after.best_score)
    assert shown["last_submission"] == after.last_submission
    assert shown["seconds"] == pytest.approx(step.seconds, abs=1e-3)
    fields = parse_response(step.response).fields
    assert shown["fields"] == ([fields[label] for label in FIELDS] if isinstance(fields, dict) else None)
    assert (shown["invalid"] is None) == (step.feedback.outcome is not Outcome.INVALID)
    if shown["invalid"] is not None:
        assert shown["invalid"] == parse_response(step.response).action.reason  # type: ignore[union-attr]


def test_index_has_a_line_for_each_trajectory(collection: Any, decode: Callable[..., Any], tmp_path: Path) -> None:
    index = decode(collection.write(tmp_path / "page.html")).index
    rows = index["rows"]
    lines = [dict(zip(rows, line, strict=True)) for line in zip(*rows.values(), strict=True)]
    wanted = [(group, one) for group, many in collection.groups.items() for one in many]
    for line, (group, trajectory) in zip(lines, wanted, strict=True):
        task = collection.tasks[trajectory.task]
        assert index["groups"][line["group"]] == group and index["tasks"][line["task"]]["name"] == trajectory.task
        assert [index["ideas"][idea] for idea in line["ideas"]] == list(trajectory.ideas)
        assert index["ends"][line["end"]] == trajectory.end
        assert [index["letters"][letter] for letter in line["steps"]] == [
            step.feedback.outcome for step in trajectory.steps
        ]
        assert line["gain"] == pytest.approx(task.gain(trajectory.score(task.m_init)))
        assert line["score"] == trajectory.score(task.m_init)
    assert len(index["ideas"]) == 6  # each once
    by_id = {line["id"]: line["steps"] for line in lines if line["group"] == 0}
    assert by_id["slow"] == "CEEeN"  # the last edit ran and made the score worse


@pytest.mark.parametrize("rules", [PAPER, Rules(), Rules("v1"), Rules(performance="binary"), Rules(repeats=False)])
def test_rewards_are_those_of_the_rules(
    collection: Any, decode: Callable[..., Any], tmp_path: Path, rules: Rules
) -> None:
    edit = collection.groups["ppo"][0].steps[0].response
    collection.groups["again"] = [collection.play("again", [edit.replace("9", "6"), edit, edit], max_steps=3)]
    found = decode(collection.write(tmp_path / "page.html", rules)).trajectories
    wanted = [one for group in collection.groups.values() for one in group]
    seen = set()
    for one, trajectory in zip(found, wanted, strict=True):
        task = collection.tasks[trajectory.task]
        for number, (shown, step) in enumerate(zip(one["steps"], trajectory.steps, strict=True)):
            repeated = trajectory.trajectory_id == "again" and number == 2
            expected = reward(task, step.feedback, step.before.metric, rules, repeated)
            assert shown["reward"] == pytest.approx(expected) and shown["case"]
            seen.add(shown["outcome"])
    assert seen == set(Outcome) - {Outcome.INFRASTRUCTURE}
    assert ("repeated instruction" in found[-1]["steps"][2]["case"]) == (not rules.repeats)


def test_unknown_task_has_no_gain_and_no_reward(collection: Any, decode: Callable[..., Any], tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", collection.groups, {}, PAPER, "toys")
    found = decode(tmp_path / "page.html")
    assert set(found.index["rows"]["gain"]) == {None}
    assert {step["reward"] for one in found.trajectories for step in one["steps"]} == {None}
    assert found.index["rows"]["score"][24:26] == [0.7, 0.6]  # the score itself takes no task


def test_scores_that_are_no_numbers_can_be_held(collection: Any, decode: Callable[..., Any], tmp_path: Path) -> None:
    one = collection.groups["ppo"][0]
    step = one.steps[0]
    odd = replace(step, feedback=replace(step.feedback, validation=float("nan")))
    worst = replace(odd, after=replace(step.after, best_score=float("-inf")))
    write_page(tmp_path / "page.html", {"odd": [replace(one, steps=(worst,))]}, {}, PAPER, "odd")
    (shown,) = decode(tmp_path / "page.html").trajectories[0]["steps"]
    assert (shown["validation"], shown["best_score"]) == ("nan", "-inf")


def test_what_utf8_cannot_hold_hides_no_trajectory(
    collection: Any, toys: Any, decode: Callable[..., Any], tmp_path: Path
) -> None:
    spelt = toys.respond(LIST_FILES, dir_path=".").replace('"dir_path"', r'"\ud800"')
    one = collection.play("spelt", [spelt], max_steps=1)
    assert spelt.isascii() and "\ud800" in getattr(parse_response(one.steps[0].response).action, "reason", "")
    collection.groups["expert"].append(one)
    found = decode(collection.write(tmp_path / "page.html"))
    (shown,) = [each for each in found.trajectories if each["id"] == "spelt"]
    assert "?" in str(shown["steps"][0]) and len(found.trajectories) == sum(map(len, collection.groups.values()))


def test_trajectory_without_steps_is_held(collection: Any, decode: Callable[..., Any], tmp_path: Path) -> None:
    empty = replace(collection.groups["ppo"][0], steps=(), end="context_limit")
    for tasks, gain in ((collection.tasks, 0.0), ({}, None)):
        write_page(tmp_path / "page.html", {"empty": [empty]}, tasks, PAPER, "empty")
        assert decode(tmp_path / "page.html").index["rows"]["gain"] == [gain]


def test_text_of_an_agent_never_stands_in_the_file_as_it_is(collection: Any, tmp_path: Path) -> None:
    hostile = {"<img src=x>": collection.groups["expert"]}
    write_page(tmp_path / "page.html", hostile, collection.tasks, PAPER, "</title><script>hacked()</script>")
    text = (tmp_path / "page.html").read_text()
    for words in ("hacked", "onerror", "<img", "Idea number", "gnp.exe"):
        assert words not in text.replace("&lt;script&gt;hacked()&lt;/script&gt;", "")
    assert text.count("<script") == text.count("</script>")


def test_page_needs_nothing_else_and_lets_no_other_script_run(collection: Any, tmp_path: Path) -> None:
    text = collection.write(tmp_path / "page.html").read_text()
    assert not re.findall(r"(?:src|href)=|@import|url\(|https?://(?!www\.w3\.org/2000/svg)", text)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy


def test_whole_edit_is_shown_where_the_scripts_are_stored(
    collection: Any, decode: Callable[..., Any], tmp_path: Path
) -> None:
    found = decode(collection.write(tmp_path / "page.html", store=collection.store)).trajectories
    look, edit, answer = found[2]["steps"]
    assert look["diff"] is None and answer["diff"] is None
    lines = edit["diff"].split("\n")
    assert lines[:2] == ["--- cedar.py", "+++ elm_6.py"]
    assert ' train = "birch_train.csv"' in lines and "-correct = 5" in lines and "+correct = 6" in lines
    assert "+validation = 0.6" in lines


def test_missing_script_leaves_the_whole_edit_out(collection: Any, decode: Callable[..., Any], tmp_path: Path) -> None:
    for blob in collection.store.root.glob("??/*"):
        blob.unlink()
    found = decode(collection.write(tmp_path / "page.html", store=collection.store)).trajectories
    assert {step["diff"] for one in found for step in one["steps"]} == {None}


def test_page_is_there_whole_or_not_at_all(collection: Any, tmp_path: Path) -> None:
    before = collection.write(tmp_path / "page.html").read_text()

    def broken() -> Iterator[Trajectory]:
        yield collection.groups["expert"][0]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        write_page(tmp_path / "page.html", {"expert": broken()}, collection.tasks, PAPER, "toys")
    assert (tmp_path / "page.html").read_text() == before
    assert [path.name for path in tmp_path.glob("*page.html*")] == ["page.html"]


def test_trajectories_are_never_held_together(collection: Any, tmp_path: Path) -> None:
    made: list[weakref.ref[Trajectory]] = []
    most = 0

    def streamed() -> Iterator[Trajectory]:
        nonlocal most
        for number in range(200):
            one = replace(collection.groups["expert"][number % 3], trajectory_id=f"n{number}", seed=number)
            made.append(weakref.ref(one))
            most = max(most, sum(each() is not None for each in made))
            yield one
            del one

    assert write_page(tmp_path / "page.html", {"expert": streamed()}, collection.tasks, PAPER, "toys") == 200
    assert most <= 3
