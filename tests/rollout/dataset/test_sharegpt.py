"""Conversations for other trainers, and conversations of theirs: what is the same, and what is said of a wrong one."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from rollout.dataset.__main__ import main
from rollout.dataset.augmentation import wordings
from rollout.dataset.edits import edits_by_trajectory
from rollout.dataset.sharegpt import read_sharegpt, to_sharegpt, write_sharegpt
from rollout.dataset.viewer.rewards import rewarded
from rollout.storage.trajectories import read_trajectories, write_trajectories
from rollout.types import Snapshot, Step, Trajectory
from tasks import action as grammar
from tasks.action import Action
from tasks.feedback import NOT_MADE, UNCHANGED, Feedback, Outcome, error_text
from tasks.naming import Names
from tasks.prompt import messages
from tasks.response import FIELDS, format_response
from tasks.reward import PAPER
from tasks.system_text import system_text

SNAPSHOT = Snapshot({"a.py": "00"}, 0.5, 0.75, "a.py", 0.5)


def respond(name: str, **arguments: str) -> str:
    return format_response(dict.fromkeys(FIELDS[:4], "Fine\u2028 \N{SNOWMAN}."), Action(name, arguments))


def recorded(name: str, num_edits: int = 2) -> Trajectory:
    """A trajectory of edits, something that is no action, and an answer."""
    edit = {"script_name": "a.py", "edit_instruction": "Use trees.", "save_name": "b.py"}
    said = [respond(grammar.EDIT, **edit)] * num_edits
    said += ["I do not know.", respond(grammar.FINAL_ANSWER, final_answer="b.py")]
    steps = [
        Step(text, "", {}, Feedback(Outcome.EDIT, f"Saved {i}.\n", 0.75), SNAPSHOT, SNAPSHOT, 1.0)
        for i, text in enumerate(said)
    ]
    names = Names("maple", "oak_train.csv", "oak_test.csv", "a.py")
    problem = "Predict it.\nBest so far: a.py 0.5000"
    return Trajectory(name, "toy", 7, names, problem, ("idea",), tuple(steps), "final_answer")


def conversations(trajectories: Iterable[Trajectory]) -> list[dict[str, object]]:
    return [to_sharegpt(each, "system") for each in trajectories]


def test_a_conversation_is_what_the_agent_read_and_wrote_up_to_its_last_word():
    trajectory = recorded("0-00001")
    record = to_sharegpt(trajectory, "system")
    chat = messages(trajectory.state(), "system")
    assert record["system"] == chat[0]["content"] == "system"
    assert [each["value"] for each in record["conversations"]] == [each["content"] for each in chat[1:-1]]
    assert [each["from"] for each in record["conversations"]] == ["human", "gpt"] * 4
    assert "idea" not in json.dumps(record).replace("ideas", "")


def test_an_edit_of_a_conversation_ran_if_nothing_else_was_said_and_earns_what_nobody_knows(toys, tmp_path: Path):
    before = recorded("a", 3)
    failed = replace(before.steps[1], feedback=Feedback(Outcome.ERROR, error_text("no such script.")))
    write_sharegpt(
        tmp_path / "data.jsonl", [replace(before, steps=(before.steps[0], failed, *before.steps[2:]))], "system"
    )
    (after,) = read_sharegpt(tmp_path / "data.jsonl")
    outcomes = [step.feedback.outcome for step in after.steps]
    assert outcomes == [Outcome.EDIT, Outcome.ERROR, Outcome.EDIT, Outcome.INVALID, Outcome.NON_EDIT]
    rewards = [rewarded(toys.make_task("a"), step, PAPER, False)[0] for step in after.steps]
    assert rewards == [None, -1.0, None, -1.0, 0.0]
    ((first, *_),) = edits_by_trajectory([after], toys.store)
    assert "scripts" not in first.labels and "workspaces" not in first.labels and first.labels["diffs"] == ()


@pytest.mark.parametrize("reason", [f"{NOT_MADE}: no.", UNCHANGED])
def test_an_edit_that_the_coder_did_not_make_is_one_after_an_import(tmp_path: Path, reason: str):
    before = recorded("a")
    unmade = replace(before.steps[0], feedback=Feedback(Outcome.NOT_EDITED, error_text(reason)))
    write_sharegpt(tmp_path / "data.jsonl", [replace(before, steps=(unmade, *before.steps[1:]))], "system")
    (after,) = read_sharegpt(tmp_path / "data.jsonl")
    assert after.steps[0].feedback.outcome is Outcome.NOT_EDITED


@pytest.mark.parametrize("form", ["lines", "list"])
def test_what_is_exported_is_imported_with_the_same_words(tmp_path: Path, form: str):
    path, before = tmp_path / "data.jsonl", [recorded("a"), recorded("b", 0), recorded("c", 5)]
    empty = replace(before[0], trajectory_id="empty", steps=())
    assert write_sharegpt(path, [*before, empty], "system") == 3
    if form == "list":
        path.write_text(json.dumps([json.loads(line) for line in path.read_text().strip().split("\n")]))
    after = list(read_sharegpt(path))
    assert [one.trajectory_id for one in after] == ["a", "b", "c"] and {one.task for one in after} == {"toy"}
    assert conversations(after) == conversations(before)
    steps = after[0].steps
    assert [step.feedback.outcome for step in steps] == [Outcome.EDIT] * 2 + [Outcome.INVALID, Outcome.NON_EDIT]
    assert steps[0].arguments == {"script_name": "a.py", "edit_instruction": "Use trees.", "save_name": "b.py"}
    assert after[0].end == "final_answer" and [path.name for path in tmp_path.iterdir()] == ["data.jsonl"]
    write_trajectories(tmp_path / "part-00000.parquet", after)
    assert conversations(read_trajectories(tmp_path)) == conversations(before)
    # nobody knows which of its words are names
    assert wordings(after[0], 3, 0, lambda *_: pytest.fail("there is no meaning")) == [after[0].state()]


@pytest.mark.parametrize(
    ("conversations", "said"),
    [
        (None, "conversation 2 has no list `conversations` of objects"),
        ("Do it.", "conversation 2 has no list `conversations` of objects {from, value}"),
        ([], "conversation 2 has 0 turns, expected a problem and an answer at least"),
        ([{"from": "human", "value": "Do it."}], "conversation 2 has 1 turns"),
        ([{"from": "gpt", "value": "Done."}], "conversation 2 has turn 1 from 'gpt', expected a text from 'human'"),
        (
            [{"from": "system", "value": "Be good."}, *[{"from": "human", "value": "Do it."}] * 2],
            "conversation 2 has turn 2 from 'human', expected a text from 'gpt'",
        ),
        ([{"from": "human", "value": "Do it."}, {"from": "gpt", "value": 3}], "conversation 2 has turn 2 from 'gpt'"),
    ],
)
def test_a_conversation_that_is_none_is_named(tmp_path: Path, capsys, conversations: object, said: str):
    path = tmp_path / "data.jsonl"
    path.write_text(
        "\n".join(map(json.dumps, [to_sharegpt(recorded("a"), "system"), {"conversations": conversations}]))
    )
    assert main(["import", str(path), "--out", str(tmp_path / "taken")]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "taken").exists()


@pytest.mark.parametrize("line", ["{oops", "[" * 200_000])
def test_a_line_that_is_no_json_is_named(tmp_path: Path, line: str):
    (tmp_path / "data.jsonl").write_text(json.dumps(to_sharegpt(recorded("a"), "system")) + f"\n{line}\n")
    with pytest.raises(ValueError, match=r"data.jsonl line 2 is not JSON"):
        list(read_sharegpt(tmp_path / "data.jsonl"))


def test_an_error_far_into_a_file_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr("rollout.dataset.commands.PART_SIZE", 2)
    lines = [json.dumps(to_sharegpt(recorded(f"{number}"), "system")) for number in range(5)]
    (tmp_path / "data.jsonl").write_text("\n".join([*lines, "{oops"]))
    command = ["import", str(tmp_path / "data.jsonl"), "--out", str(tmp_path / "taken")]
    assert main(command) == 2 and "line 6" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["data.jsonl"]
    (tmp_path / "data.jsonl").write_text("\n".join(lines), encoding="utf-8-sig")
    assert main(command) == 0 and len(read_trajectories(tmp_path / "taken")) == 5


def test_conversations_have_ids_of_their_own_and_null_is_none(tmp_path: Path, capsys):
    one = to_sharegpt(recorded("a"), "system")
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join([json.dumps({**one, "id": None, "task": None})] * 2))
    assert [(each.trajectory_id, each.task) for each in read_sharegpt(path)] == [
        ("data-000001", ""),
        ("data-000002", ""),
    ]
    path.write_text("\n".join([json.dumps(one)] * 2))
    assert main(["import", str(path), "--out", str(tmp_path / "taken")]) == 2
    assert "conversation 2 repeats the id a" in capsys.readouterr().err


def test_a_character_that_no_file_can_hold_does_not_stop_an_import(tmp_path: Path):
    one = to_sharegpt(recorded("a"), "system")
    one["conversations"][-1]["value"] = respond(grammar.FINAL_ANSWER, final_answer="a MARK sign").replace(
        "MARK", "\\ud83d"
    )
    (tmp_path / "data.jsonl").write_text(json.dumps(one))
    assert main(["import", str(tmp_path / "data.jsonl"), "--out", str(tmp_path / "taken")]) == 0
    assert read_trajectories(tmp_path / "taken")[0].steps[-1].arguments == {"final_answer": "a ? sign"}


def test_an_export_has_the_system_message_of_its_run(tmp_path: Path, capsys) -> None:
    run_dir, out = tmp_path / "run", tmp_path / "data.jsonl"
    write_trajectories(run_dir / "trajectories" / "part-00000.parquet", [recorded("a")])

    def exported(folder: Path, *options: str) -> str:
        assert main(["export", str(folder), "--out", str(out), *options]) == 0
        return json.loads(out.read_text())["system"]

    assert main(["export", str(run_dir), "--out", str(out)]) == 2 and not out.exists()
    assert "the system message is not known; give --system full or --system brief" in capsys.readouterr().err
    assert exported(run_dir, "--system", "brief") == system_text("brief", 100)
    (run_dir / "config.yaml").write_text("prompt: {system: brief}\nobservation: {script_lines: 40}\n")
    assert exported(run_dir) == exported(run_dir / "trajectories") == system_text("brief", 40)
    assert exported(run_dir, "--system", "full") == system_text("full", 100)
    # of another version of the program
    (run_dir / "config.yaml").write_text(
        "prompt: {system: brief, tone: 1, 2: 3}\nobservation: {script_characters: 10}\n"
    )
    assert exported(run_dir) == system_text("brief", 100)


@pytest.mark.parametrize("settings", ["{system: short}\nobservation: {}", "{}\nobservation: {script_lines: '9'}"])
def test_a_recorded_system_message_that_is_not_known_is_named_with_its_file(
    tmp_path: Path, settings: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_trajectories(tmp_path / "trajectories" / "part-00000.parquet", [recorded("a")])
    (tmp_path / "config.yaml").write_text(f"prompt: {settings}\n")
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "data.jsonl")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / 'config.yaml'}: prompt.system=" in line and line.endswith("; give --system")


def test_the_commands_export_import_and_select(tmp_path: Path, capsys):
    run_dir, taken = tmp_path / "run", tmp_path / "taken"
    write_trajectories(run_dir / "trajectories" / "part-00000.parquet", [recorded(f"{i}", i) for i in range(6)])
    assert main(["export", str(run_dir), "--out", str(tmp_path / "data.jsonl"), "--system", "full"]) == 0
    assert main(["import", str(tmp_path / "data.jsonl"), "--out", str(taken)]) == 0
    assert main(["import", str(tmp_path / "data.jsonl"), "--out", str(taken)]) == 2
    assert "is not empty" in capsys.readouterr().err
    manifest = tmp_path / "selection.json"
    assert main(["select", str(run_dir), "--filters", "valid_format", "--out", str(manifest)]) == 2
    assert "valid_format dropped" not in capsys.readouterr().out and not manifest.exists()
    assert main(["select", str(taken), "--filters", "ended", "--validation-share", "0.3", "--out", str(manifest)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "ended: 0 dropped" and json.loads(manifest.read_text())["identity"] in said[-1]
    assert main(["select", str(taken), "--filters", "pretty"]) == 2
    assert "no filter 'pretty'; there are acted" in capsys.readouterr().err


def test_select_names_an_option_out_of_its_range(tmp_path: Path, capsys):
    assert main(["select", str(tmp_path), "--max-similarity", "1.5"]) == 2
    error = capsys.readouterr().err
    assert error.endswith("--max-similarity: got 1.5, expected a number less than or equal to 1\n")
