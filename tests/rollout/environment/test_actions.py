"""The seven actions, one step at a time: what each does, says and leaves."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollout.environment.actions import HANDLERS
from rollout.environment.effect import Effect, Tools
from rollout.environment.environment import StepResult
from rollout.environment.paths import head, located
from rollout.errors import CoderError, ExecutorError
from rollout.types import Exit, Snapshot
from tasks import action as grammar
from tasks.action import ActionSpec
from tasks.feedback import Outcome
from tasks.prompt import messages, problem_text, system_text
from tasks.state import State
from tasks.task import Instance

BEST = "Best so far: cedar.py 0.5000"


def step(toys, response: str, snapshot: Snapshot | None = None) -> StepResult:
    start = toys.environment.start(toys.instance)
    return asyncio.run(toys.environment.step(toys.instance, snapshot or start, response))


def text(toys, result: StepResult, name: str) -> str:
    return toys.store.get(result.after.files[name]).decode()


def test_an_episode_starts_from_the_initial_files_and_scores(toys):
    start = toys.environment.start(toys.instance)
    assert sorted(start.files) == ["birch_test.csv", "birch_train.csv", "cedar.py"]
    assert (start.metric, start.last_submission, start.best_script, start.best_score) == (0.5, None, "cedar.py", 0.5)
    assert '"birch_train.csv"' in toys.store.get(start.files["cedar.py"]).decode()


@pytest.mark.parametrize("folder", [".", "", "./"])
def test_list_files_names_the_workspace(toys, folder: str):
    result = step(toys, toys.respond(grammar.LIST_FILES, dir_path=folder))
    assert result.feedback.outcome is Outcome.NON_EDIT
    assert result.feedback.text == f"Files: birch_test.csv, birch_train.csv, cedar.py\n{BEST}"
    assert (result.action, result.arguments) == ("List Files", {"dir_path": folder})


@pytest.mark.parametrize("folder", ["..", "/", "/etc", "data", "../private"])
def test_there_is_no_other_folder(toys, folder: str):
    assert step(toys, toys.respond(grammar.LIST_FILES, dir_path=folder)).feedback.outcome is Outcome.ERROR


def test_copy_file_adds_the_file_and_runs_nothing(toys):
    result = step(toys, toys.respond(grammar.COPY_FILE, source="cedar.py", destination="./oak.py"))
    assert result.feedback.outcome is Outcome.NON_EDIT
    assert result.after.files["oak.py"] == result.after.files["cedar.py"]
    assert toys.executor.jobs == []


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("nothing.py", "oak.py"),
        ("cedar.py", "birch_train.csv"),
        ("cedar.py", "cedar.py"),
        ("cedar.py", "../oak.py"),
        ("cedar.py", "/tmp/oak.py"),
        ("cedar.py", "a/b.py"),
        ("cedar.py", "-c"),
        ("cedar.py", ""),
        ("cedar.py", "x" * 100),
        ("../private/answers.csv", "oak.py"),
    ],
)
def test_a_copy_stays_in_the_workspace_and_off_read_only_files(toys, source: str, destination: str):
    result = step(toys, toys.respond(grammar.COPY_FILE, source=source, destination=destination))
    assert result.feedback.outcome is Outcome.ERROR
    assert result.feedback.text.startswith("Error: ")
    assert result.feedback.text.endswith(BEST)
    assert result.after == toys.environment.start(toys.instance)


def inspect(toys, first: int, last: int, name: str = "cedar.py", snapshot: Snapshot | None = None) -> StepResult:
    arguments = {"script_name": name, "start_line_number": first, "end_line_number": last}
    return step(toys, toys.respond(grammar.INSPECT, **arguments), snapshot)


def test_inspect_shows_lines_and_where_the_file_ends(toys):
    result = inspect(toys, 2, 90)
    assert result.feedback.outcome is Outcome.NON_EDIT
    shown = 'cedar.py, lines 2 to 4 of 4:\ntest = "birch_test.csv"\ncorrect = 5\nvalidation = 0.5'
    assert result.feedback.text == f"{shown}\n{BEST}"


@pytest.mark.parametrize(("first", "last"), [(1, 101), (0, 3), (3, 2), (5, 9)])
def test_inspect_refuses_ranges_too_long_or_outside(toys, first: int, last: int):
    assert inspect(toys, first, last).feedback.outcome is Outcome.ERROR


def test_inspect_says_which_lines_it_had_room_for(toys):
    start = toys.environment.start(toys.instance)
    files = {**start.files, "long.py": toys.store.put(b"x = 1  # long\n" * 1000), "blob.bin": toys.store.put(b"\xff")}
    snapshot = Snapshot(files, 0.5, None, "cedar.py", 0.5)
    long = inspect(toys, 1, 100, "long.py", snapshot).feedback.text
    assert long.startswith("long.py, lines 1 to 28 of 1000:\nx = 1  # long\n")
    assert long.count("x = 1") == 28
    assert inspect(toys, 1, 100, "blob.bin", snapshot).feedback.outcome is Outcome.ERROR
    assert inspect(toys, 1, 100, "none.py", snapshot).feedback.outcome is Outcome.ERROR


@pytest.fixture
def photos(toys, tmp_path) -> Snapshot:
    """A state with a folder beside the files."""
    folder = tmp_path / "photos"
    files = {f"{number:03}.png": b"\x89PNG\xff" for number in range(60)}
    files |= {"cats/labels.txt": b"black\nwhite\n", "cats/old/a name.txt": b"grey"}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    start = toys.environment.start(toys.instance)
    return replace(start, files={**start.files, "train/": toys.store.put_folder(folder)})


@pytest.mark.parametrize("path", ["train", "train/", "./train", " ./train/ "])
def test_list_files_names_the_first_files_of_a_folder_and_counts_them(toys, photos, path: str):
    result = step(toys, toys.respond(grammar.LIST_FILES, dir_path="."), photos)
    assert result.feedback.text == f"Files: birch_test.csv, birch_train.csv, cedar.py, train/\n{BEST}"
    result = step(toys, toys.respond(grammar.LIST_FILES, dir_path=path), photos)
    names = ", ".join(f"{number:03}.png" for number in range(50))
    assert result.feedback.text == f"Files in train/: {names}, ... (1 folder, 60 files)\n{BEST}"


def test_list_files_goes_into_nested_folders(toys, photos):
    for path, told in (
        ("train/cats", "train/cats/: labels.txt, old/"),
        ("./train/cats/old/", "train/cats/old/: a name.txt"),
    ):
        result = step(toys, toys.respond(grammar.LIST_FILES, dir_path=path), photos)
        assert result.feedback.text == f"Files in {told}\n{BEST}"
    for path in (
        "train/dogs",
        "train/..",
        "train/../train",
        "/train",
        "cats",
        "train/cats/labels.txt",
        "//",
    ):
        assert step(toys, toys.respond(grammar.LIST_FILES, dir_path=path), photos).feedback.outcome is Outcome.ERROR


def test_long_names_of_a_folder_are_told_as_far_as_there_is_room(toys, tmp_path):
    for number in range(40):
        (tmp_path / "long").mkdir(exist_ok=True)
        (tmp_path / "long" / f"{number:0200}").write_bytes(b"")
    start = toys.environment.start(toys.instance)
    snapshot = replace(start, files={**start.files, "train/": toys.store.put_folder(tmp_path / "long")})
    told = step(toys, toys.respond(grammar.LIST_FILES, dir_path="train"), snapshot).feedback.text
    assert told.endswith(f", ... (40 files)\n{BEST}") and len(told) < 1100


def test_text_in_a_folder_is_inspected_understood_and_copied(toys, photos):
    shown = inspect(toys, 2, 2, "train/cats/labels.txt", photos).feedback.text
    assert shown == f"train/cats/labels.txt, lines 2 to 2 of 2:\nwhite\n{BEST}"
    assert "is not a text file" in inspect(toys, 1, 2, "train/001.png", photos).feedback.text
    response = toys.respond(grammar.UNDERSTAND, file_name="./train/cats/old/a name.txt", things_to_look_for="cats")
    assert step(toys, response, photos).feedback.text == f"train/cats/old/a name.txt: 1 lines about cats\n{BEST}"
    response = toys.respond(grammar.COPY_FILE, source="train/cats/labels.txt", destination="labels.txt")
    result = step(toys, response, photos)
    assert text(toys, result, "labels.txt") == "black\nwhite\n"
    assert result.feedback.text == f"Copied train/cats/labels.txt to labels.txt.\n{BEST}"


@pytest.mark.parametrize(
    "path",
    ["train", "train/", "train/cats", "train/none", "train/../cedar.py", "/train/000.png", "train/./000.png", "cats/x"],
)
def test_what_is_no_file_of_a_folder_is_refused(toys, photos, path: str):
    assert inspect(toys, 1, 2, path, photos).feedback.outcome is Outcome.ERROR
    response = toys.respond(grammar.COPY_FILE, source=path, destination="copy.png")
    assert step(toys, response, photos).feedback.outcome is Outcome.ERROR


@pytest.mark.parametrize("path", ["train", "train/", "train/new.py", "./train/cats/labels.txt", "train/../new.py"])
def test_a_folder_is_not_written_to(toys, photos, path: str):
    result = step(toys, toys.respond(grammar.COPY_FILE, source="cedar.py", destination=path), photos)
    assert result.feedback.text == f"Error: train/ is read-only\n{BEST}" and result.after == photos
    result = step(toys, toys.edit("cedar.py", "train/new.py", correct=6), photos)
    assert result.feedback.text == f"Error: train/ is read-only\n{BEST}" and result.after == photos


def test_of_a_large_file_the_beginning_is_shown(toys, tmp_path):
    (tmp_path / "large.csv").write_bytes(b"id,x\n" + b"1,2\n" * 1_000_000)
    (tmp_path / "line.txt").write_bytes("\N{SNOWMAN}".encode() * 1_000_000)
    start = toys.environment.start(toys.instance)
    files = {name: toys.store.put_file(tmp_path / name) for name in ("large.csv", "line.txt")}
    snapshot = replace(start, files={**start.files, **files})
    shown = inspect(toys, 1, 2, "large.csv", snapshot).feedback.text
    assert shown == f"large.csv, lines 1 to 2 of a file of 4,000,005 bytes:\nid,x\n1,2\n{BEST}"
    beyond = inspect(toys, 500_000, 500_001, "large.csv", snapshot).feedback
    assert beyond.text == f"Error: large.csv is shown up to line {((1 << 20) - 5) // 4 + 1} only\n{BEST}"
    assert "\N{SNOWMAN}...\N{SNOWMAN}" in inspect(toys, 1, 1, "line.txt", snapshot).feedback.text
    response = toys.respond(grammar.UNDERSTAND, file_name="large.csv", things_to_look_for="ids")
    told = step(toys, response, snapshot).feedback.text
    assert told.startswith("large.csv, the first 1,048,573 characters of 4,000,005 bytes: 262143 lines about ids")


def test_copies_that_would_fill_the_workspace_are_refused(toys, tmp_path):
    with open(tmp_path / "large.bin", "wb") as file:
        file.truncate(40 << 20)
    start = toys.environment.start(toys.instance)
    snapshot = replace(start, files={**start.files, "large.bin": toys.store.put_file(tmp_path / "large.bin")})
    result = step(toys, toys.respond(grammar.COPY_FILE, source="large.bin", destination="copy.bin"), snapshot)
    assert result.feedback.outcome is Outcome.ERROR and "41,943,040 bytes do not fit" in result.feedback.text
    result = step(toys, toys.respond(grammar.COPY_FILE, source="cedar.py", destination="oak.py"), snapshot)
    assert result.feedback.outcome is Outcome.NON_EDIT


def test_understand_file_asks_the_coder(toys):
    result = step(toys, toys.respond(grammar.UNDERSTAND, file_name="birch_train.csv", things_to_look_for="columns"))
    assert result.feedback.outcome is Outcome.NON_EDIT
    assert result.feedback.text == f"birch_train.csv: 2 lines about columns\n{BEST}"


def test_execute_reports_the_run_and_counts_its_submission_but_moves_no_metric(toys):
    before = step(toys, toys.edit("cedar.py", "oak.py", correct=8, validation=0.8)).after
    result = step(toys, toys.respond(grammar.EXECUTE, script_name="cedar.py"), before)
    assert result.feedback.outcome is Outcome.NON_EDIT
    assert result.feedback.text == "Ran cedar.py:\nvalidation accuracy: 0.5000\nBest so far: oak.py 0.8000"
    assert (result.feedback.metric, result.feedback.validation) == (0.5, 0.5)
    assert (result.after.metric, result.after.last_submission) == (0.8, 0.5)
    assert result.after.files == before.files
    assert result.seconds == 0.5


def test_execute_takes_scripts_that_exist(toys):
    for name in ("none.py", "birch_train.csv", "../x.py", "/bin/x.py"):
        assert step(toys, toys.respond(grammar.EXECUTE, script_name=name)).feedback.outcome is Outcome.ERROR
    assert toys.executor.jobs == []


def test_a_final_answer_changes_nothing(toys):
    result = step(toys, toys.respond(grammar.FINAL_ANSWER, final_answer="cedar.py is best"))
    assert (result.feedback.outcome, result.action) == (Outcome.NON_EDIT, "Final Answer")
    assert result.after == toys.environment.start(toys.instance)


def test_an_edit_saves_runs_and_moves_metric_submission_and_best(toys):
    result = step(toys, toys.edit("cedar.py", "oak.py", correct=9, validation=0.8))
    assert result.feedback.outcome is Outcome.EDIT
    assert (result.feedback.metric, result.feedback.validation) == (0.9, 0.8)
    assert result.feedback.text == (
        "Saved oak.py:\n-correct = 5\n-validation = 0.5\n+correct = 9\n+validation = 0.8\n"
        "validation accuracy: 0.8000\nBest so far: oak.py 0.8000"
    )
    after = result.after
    assert (after.metric, after.last_submission, after.best_script, after.best_score) == (0.9, 0.9, "oak.py", 0.8)
    assert "correct = 9" in text(toys, result, "oak.py")
    assert "correct = 5" in text(toys, result, "cedar.py")


def test_the_hidden_score_is_in_no_text(toys):
    result = step(toys, toys.edit("cedar.py", "oak.py", correct=9, validation=0.4321))
    assert result.feedback.metric == 0.9
    assert "0.9" not in result.feedback.text


def test_a_worse_edit_moves_the_metric_but_not_the_best(toys):
    result = step(toys, toys.edit("cedar.py", "oak.py", correct=2, validation=0.3))
    after = result.after
    assert (after.metric, after.last_submission, after.best_script, after.best_score) == (0.2, 0.2, "cedar.py", 0.5)


@pytest.mark.parametrize("score", ["float('nan')", "1e999"])
def test_a_score_that_is_no_number_is_never_the_best(toys, score: str):
    output = f"validation accuracy: {'nan' if 'nan' in score else 'inf'}"
    result = step(toys, toys.edit("cedar.py", "oak.py", correct=9, validation=None, output=output))
    assert result.feedback.outcome is Outcome.EDIT
    assert result.after.best_script == "cedar.py"


@pytest.mark.parametrize(
    ("exit", "outcome", "words"),
    [
        (Exit.TIMEOUT, Outcome.CORNER, "longer than 20 s"),
        (Exit.OUT_OF_MEMORY, Outcome.CORNER, "1536 MiB"),
        (Exit.OUT_OF_DISK, Outcome.CORNER, "disk space"),
        (Exit.CRASHED, Outcome.ERROR, "crashed"),
        (Exit.KILLED, Outcome.ERROR, "crashed"),
    ],
)
def test_an_edit_that_does_not_run_is_kept_but_counts_nothing(toys, exit: Exit, outcome: Outcome, words: str):
    result = step(toys, toys.edit("cedar.py", "oak.py", exit=exit.value))
    assert result.feedback.outcome is outcome
    assert words in result.feedback.text
    assert "oak.py" in result.after.files
    assert (result.after.metric, result.after.last_submission) == (0.5, None)
    run = step(toys, toys.respond(grammar.EXECUTE, script_name="oak.py"), result.after)
    assert run.feedback.outcome is outcome


def test_a_traceback_is_told_in_two_lines(toys):
    output = (
        "Traceback (most recent call last):\n"
        '  File "/workspace/oak.py", line 12, in <module>\n    model.fit(X, y)\n'
        '  File "/env/lib/sklearn/base.py", line 1000, in wrapper\n    return fit(self)\n'
        "ValueError: Input X contains NaN.\nLogisticRegression does not accept missing values.\n"
    )
    result = step(toys, toys.edit("cedar.py", "oak.py", exit="crashed", output=output))
    assert result.feedback.text.endswith(
        f"Error: oak.py crashed.\nline 12: model.fit(X, y)\nValueError: Input X contains NaN.\n{BEST}"
    )


def test_an_edit_without_a_valid_submission_is_an_error(toys):
    nothing = step(toys, toys.edit("cedar.py", "oak.py", correct=None))
    assert nothing.feedback.outcome is Outcome.ERROR
    assert "left no submission.csv" in nothing.feedback.text
    wrong = step(toys, toys.edit("cedar.py", "oak.py", correct=None, submission="id,target\n0,1\n"))
    assert wrong.feedback.outcome is Outcome.ERROR
    assert "left an invalid submission.csv" in wrong.feedback.text
    for result in (nothing, wrong):
        assert (result.feedback.metric, result.after.metric, result.after.last_submission) == (None, 0.5, None)
        assert result.after.best_script == "cedar.py"


def test_what_stands_in_the_submissions_place_is_not_shown_to_the_script(toys):
    copied = step(toys, toys.respond(grammar.COPY_FILE, source="birch_test.csv", destination="submission.csv")).after
    step(toys, toys.edit("cedar.py", "oak.py", correct=6), copied)
    assert sorted(toys.executor.jobs[-1].files) == ["birch_test.csv", "birch_train.csv", "cedar.py", "oak.py"]


@pytest.mark.parametrize(
    "response",
    [
        {"script_name": "cedar.py", "edit_instruction": "make it better", "save_name": "oak.py"},  # not understood
        {"script_name": "cedar.py", "edit_instruction": "{}", "save_name": "oak.py"},  # nothing changes
        {"script_name": "cedar.py", "edit_instruction": '{"correct": 6}', "save_name": "birch_test.csv"},
        {"script_name": "cedar.py", "edit_instruction": '{"correct": 6}', "save_name": "oak.txt"},
        {"script_name": "cedar.py", "edit_instruction": '{"correct": 6}', "save_name": "../oak.py"},
        {"script_name": "birch_train.csv", "edit_instruction": '{"correct": 6}', "save_name": "oak.py"},
    ],
)
def test_an_edit_that_cannot_be_made_is_an_error_and_saves_nothing(toys, response: dict[str, str]):
    result = step(toys, toys.respond(grammar.EDIT, **response))
    assert result.feedback.outcome is Outcome.ERROR
    assert result.after == toys.environment.start(toys.instance)
    assert toys.executor.jobs == []


def test_a_missing_script_is_edited_as_an_empty_one(toys):
    result = step(toys, toys.edit("new.py", "oak.py", correct=7, validation=0.6))
    assert result.feedback.outcome is Outcome.EDIT
    assert text(toys, result, "oak.py") == "correct = 7\nvalidation = 0.6\n"
    assert "new.py" not in result.after.files


@pytest.mark.parametrize("response", ["hello", "", "Action: List Files\nAction Input: {}"])
def test_an_invalid_response_is_told_why_and_changes_nothing(toys, response: str):
    result = step(toys, response)
    assert result.feedback.outcome is Outcome.INVALID
    assert result.feedback.text.startswith("Invalid response: the field")
    assert result.feedback.text.endswith(BEST)
    assert (result.action, result.arguments, result.seconds) == ("", {}, 0.0)
    assert result.after == toys.environment.start(toys.instance)


def test_text_that_utf8_cannot_hold_is_taken_in(toys):
    response = toys.respond(grammar.EDIT, script_name="cedar.py", edit_instruction="SPOT", save_name="oak.py")
    result = step(toys, response.replace("SPOT", "\\ud800"))
    assert result.arguments["edit_instruction"] == "?"
    listed = toys.respond(grammar.LIST_FILES, dir_path="SPOT").replace("SPOT", "\\ud800")
    assert step(toys, listed).feedback.text.encode()


VALUES = st.text(max_size=20) | st.sampled_from(["cedar.py", "birch_train.csv", "../x", "/", ".", "3", "9" * 30])
RESPONSES = st.text(max_size=200) | st.sampled_from(sorted(grammar.ACTIONS)).flatmap(
    lambda name: st.fixed_dictionaries(dict.fromkeys(grammar.ACTIONS[name].arguments, VALUES)).map(
        lambda arguments: (
            f"Reflection:\nResearch Plan and Status:\nFact Check:\nThought:\nAction: {name}\n"
            f"Action Input: {json.dumps(arguments)}"
        )
    )
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(response=RESPONSES)
def test_no_response_breaks_the_environment_or_touches_the_data(toys, response: str):
    result = step(toys, response)
    start = toys.environment.start(toys.instance)
    assert result.feedback.text.encode().endswith(BEST.encode())
    assert {name: result.after.files[name] for name in toys.instance.read_only}.items() <= start.files.items()


def test_an_infrastructure_failure_is_tried_once_more_and_then_raised(toys):
    toys.executor.faults = [ExecutorError("lost")]
    result = step(toys, toys.edit("cedar.py", "oak.py", correct=6))
    assert result.feedback.outcome is Outcome.EDIT
    toys.executor.faults = [ExecutorError("lost"), CoderError("gone")]
    with pytest.raises(CoderError, match="gone"):
        step(toys, toys.edit("cedar.py", "oak.py", correct=6))
    with pytest.raises(ExecutorError, match="sandbox"):
        step(toys, toys.edit("cedar.py", "oak.py", exit="infrastructure", output="no bwrap"))


def test_the_same_action_in_the_same_state_gives_the_same_result(toys):
    response = toys.edit("cedar.py", "oak.py", correct=9, validation=0.8)
    assert replace(step(toys, response), seconds=0.0) == replace(step(toys, response), seconds=0.0)


def test_every_action_has_a_handler():
    assert set(HANDLERS) == set(grammar.ACTIONS)


def test_a_new_action_takes_one_definition_and_one_handler(toys, monkeypatch: pytest.MonkeyPatch):
    async def count_lines(
        tools: Tools, instance: Instance, files: Mapping[str, str], arguments: Mapping[str, str]
    ) -> Effect:
        del instance
        name, digest = located(tools.store, files, arguments["file_name"])
        number = len((await head(tools.store, name, digest))[0].splitlines())
        return Effect(Outcome.NON_EDIT, f"{name} has {number} lines.", files)

    spec = ActionSpec("Count Lines", {"file_name": "file", "at_most": "number"}, note="of text")
    monkeypatch.setitem(grammar.ACTIONS, spec.name, spec)
    monkeypatch.setitem(HANDLERS, spec.name, count_lines)

    assert '\nCount Lines {"file_name": file, "at_most": number} (of text)\n\nAnswer with' in system_text()
    result = step(toys, toys.respond("Count Lines", file_name="cedar.py", at_most=9))
    assert (result.action, result.arguments) == ("Count Lines", {"file_name": "cedar.py", "at_most": "9"})
    assert (result.feedback.outcome, result.feedback.text) == (Outcome.NON_EDIT, f"cedar.py has 4 lines.\n{BEST}")
    state = State(problem_text(toys.instance)).then("a response", result.feedback.text)
    assert messages(state)[0]["content"] == system_text() and messages(state)[-1]["content"] == result.feedback.text
    missing = step(toys, toys.respond("Count Lines", file_name="oak.py", at_most=9))
    assert missing.feedback.text == f"Error: there is no file oak.py\n{BEST}"
    wrong = step(toys, toys.respond("Count Lines", file_name="cedar.py", at_most=9).replace(": 9", ': "few"'))
    assert wrong.feedback.text == f"Invalid response: at_most must be a whole number.\n{BEST}"
