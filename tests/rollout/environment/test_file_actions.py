"""Listing, copying, inspecting and understanding files, and folders of data."""

from dataclasses import replace

import pytest

from rollout.environment.environment import StepResult
from rollout.types import Snapshot
from tasks import action as grammar
from tasks.feedback import Outcome

from .acting import BEST, step, text


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
