"""Whether a response repeats what its context says."""

import pytest

from rollout.sampling.grounding import grounding_shares, read_grounding
from rollout.types import Snapshot
from tasks import action as grammar
from tasks.response import parse_response

SNAPSHOT = Snapshot({"oak.py": "0", "fir_train.csv": "1"}, 0.5, None, "oak.py", 0.71234)


def response(toys, status: str, **arguments: str) -> str:
    said = toys.respond(grammar.UNDERSTAND, things_to_look_for="x", **arguments)
    return said.replace("Research Plan and Status: Fine.", f"Research Plan and Status: {status}")


def read(text: str, snapshot: Snapshot) -> dict[str, bool | None]:
    return read_grounding(parse_response(text), snapshot)


@pytest.mark.parametrize(
    ("status", "best_script", "best_score"),
    [
        ("Best so far: oak.py 0.7123. Next trees.", True, True),
        ("Best so far: oak.py 0.7124.", True, False),
        ("Best so far: elm.py 0.7123.", False, True),
        ("All is fine.", False, False),
    ],
)
def test_the_status_field_is_held_against_the_snapshot(toys, status: str, best_script: bool, best_score: bool):
    assert read(response(toys, status, file_name="fir_train.csv"), SNAPSHOT) == {
        "file_exists": True,
        "best_script": best_script,
        "best_score": best_score,
    }


def test_a_file_that_is_not_there_is_misread(toys):
    assert read(response(toys, "x", file_name="fir_test.csv"), SNAPSHOT)["file_exists"] is False
    assert read(response(toys, "x", file_name="./oak.py"), SNAPSHOT)["file_exists"] is True


def test_of_a_file_in_a_folder_nothing_is_known(toys):
    snapshot = Snapshot({"oak.py": "0", "train/": "1"}, 0.5, None, "oak.py", 0.71234)
    found = {
        name: read(response(toys, "x", file_name=name), snapshot)["file_exists"]
        for name in ("train/cats/1.txt", "test/1.txt", "train", "oak.py")
    }
    assert found == {"train/cats/1.txt": None, "test/1.txt": False, "train": False, "oak.py": True}


def test_an_action_without_a_file_and_a_response_without_fields_have_nothing_to_repeat(toys):
    listed = toys.respond(grammar.LIST_FILES, dir_path=".")
    assert read(listed, SNAPSHOT)["file_exists"] is None
    assert set(read("hello", SNAPSHOT).values()) == {None}
    broken = response(toys, "Best so far: oak.py 0.7123.", file_name="oak.py").replace("{", "")
    assert read(broken, SNAPSHOT) == {"file_exists": None, "best_script": True, "best_score": True}


def test_shares_are_of_those_who_had_something_to_repeat():
    nothing = {"file_exists": None, "best_script": None, "best_score": None}
    right = {"file_exists": True, "best_script": True, "best_score": False}
    wrong = {"file_exists": False, "best_script": True, "best_score": False}
    shares = grounding_shares([nothing, right, wrong])
    assert (shares["file_exists"], shares["best_script"], shares["best_score"]) == (0.5, 1.0, 0.0)
    assert (shares["num_file_exists"], shares["num_best_script"]) == (2, 2)
    assert grounding_shares([nothing]) == {"num_file_exists": 0, "num_best_script": 0, "num_best_score": 0}
