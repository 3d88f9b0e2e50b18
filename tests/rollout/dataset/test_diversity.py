"""The diversity of stored collections: figures, words, tables, and the command that prints them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from rollout.dataset.__main__ import main
from rollout.dataset.diversity import TITLES, diversity, read_edits, table, verb_nouns
from rollout.errors import InfrastructureError
from rollout.scripted.recipes import recognize
from rollout.storage.blob_store import BlobStore
from rollout.storage.trajectories import write_trajectories
from rollout.types import Snapshot, Step, Trajectory
from tasks.action import EDIT
from tasks.feedback import Feedback, Outcome
from tasks.naming import Names

NARROW = ("Use a random forest.", "Use a random forest.", "Use more trees.")
WIDE = ("Use a random forest.", "Add spline features.", "Tune the model.", "Train longer.", "Drop half of the rows.")


def embed(texts) -> np.ndarray:
    """Returns a unit vector a text, all at right angles."""
    return np.eye(len(texts))


def failing(error: Exception) -> Callable[[Sequence[str]], np.ndarray]:
    def embed(texts: Sequence[str]) -> np.ndarray:
        raise error

    return embed


def collection(folder: Path, instructions: tuple[str, ...], count: int) -> Path:
    """Writes a run's collection in which trajectory i asks for instructions i and i + 1; returns its folder."""
    store = BlobStore(folder / "blobs")
    names = Names("elm", "elm_train.csv", "elm_test.csv", "run_elm.py")
    first = store.put(b"read('elm_train.csv')\n")
    done = []
    for number in range(count):
        steps, before = [], Snapshot({"run_elm.py": first}, 0.0, None, "run_elm.py", 0.0)
        for place in range(2):
            text = instructions[(number + place) % len(instructions)]
            saved = store.put(f"read('elm_train.csv')\n# {text}\n".encode())
            after = Snapshot({"run_elm.py": first, "run_oak.py": saved}, 0.0, None, "run_elm.py", 0.0)
            arguments = {"script_name": "run_elm.py", "edit_instruction": text, "save_name": "run_oak.py"}
            feedback = Feedback(Outcome.EDIT, f"Saved run_oak.py:\n+# {text}\nvalidation mae: 1.0")
            steps.append(Step("", EDIT, arguments, feedback, before, after, 0.0))
            before = after
        done.append(Trajectory(f"{number:03d}", "toy", number, names, "problem", (), tuple(steps), "step_limit"))
    write_trajectories(folder / "trajectories" / "part-00000.parquet", done)
    return folder / "trajectories"


def test_figures_of_a_stored_collection(tmp_path: Path) -> None:
    units = read_edits(collection(tmp_path, NARROW, 6), recognize)
    whole = diversity({"narrow": units}, 0, embed)["whole"]["narrow"]
    assert (whole["num_trajectories"], whole["num_edits"]) == (6, 12)
    assert (whole["distinct_instructions"], whole["distinct_verbs"], whole["distinct_nouns"]) == (2, 1, 2)
    assert whole["distinct_recipes"] == whole["distinct_diffs"] == whole["distinct_scripts"] == 2
    assert whole["workspace_share"] == pytest.approx(2 / 12)
    assert 0 < whole["mean_distance"] < np.sqrt(2)


def test_verbs_come_with_their_nouns_as_shares_of_all_edits(tmp_path: Path) -> None:
    found = verb_nouns(read_edits(collection(tmp_path, (*NARROW, "Train longer."), 4)))
    assert found == [{"verb": "use", "share": 0.75, "nouns": {"forest": 0.5, "tree": 0.25}}]


def test_wider_collection_differs_by_more_than_chance(tmp_path: Path) -> None:
    narrow, wide = (
        read_edits(collection(tmp_path / name, texts, count), recognize)
        for name, texts, count in (("narrow", NARROW, 60), ("wide", WIDE, 20))
    )
    found = diversity({"narrow": narrow, "wide": wide}, 0, embed)
    assert found["equal"]["num_edits"] == 20
    for key in ("distinct_verbs", "distinct_pairs", "effective_recipes", "distinct_diffs", "mean_distance"):
        assert found["equal"]["differences"]["wide"][key]["low"] > 0, key
    page = table(found)
    assert "At 20 edits each" in page and "The same, minus narrow" in page
    assert set(found["whole"]["wide"]) - {"verb_nouns"} == set(TITLES)  # every measure has a row
    assert all(f"| {title} |" in page for title in TITLES.values())


@pytest.mark.parametrize("error", [InfrastructureError("it failed"), ValueError("it is not installed")])
def test_without_an_encoder_only_distances_are_missing(
    tmp_path: Path, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    found = diversity({"narrow": read_edits(collection(tmp_path, NARROW, 6))}, 0, failing(error))
    assert str(error) in caplog.text
    assert "mean_distance" not in found["whole"]["narrow"] and "mean distance" not in table(found)
    assert found["whole"]["narrow"]["distinct_instructions"] == 2


def test_set_without_edits_is_left_out() -> None:
    assert diversity({"nothing": []}, 0, embed) == {"whole": {}, "equal": None}
    assert table({"whole": {}, "equal": None}) == "No edits."


def test_command_says_in_a_line_what_it_cannot_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diversity", str(tmp_path / "nowhere")]) == 2
    folder = collection(tmp_path, NARROW, 2)
    assert main(["diversity", str(folder), str(folder)]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "nowhere" in first and "given twice" in second


@pytest.mark.slow
def test_command_prints_tables_and_json_with_the_real_encoder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [str(collection(tmp_path / "narrow", NARROW, 9)), str(collection(tmp_path / "wide", WIDE, 9))]
    assert main(["diversity", *folders, "--json", "--seed", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["whole"]) == folders
    assert found["equal"]["differences"][folders[1]]["mean_distance"]["low"] > 0
    assert main(["diversity", folders[0]]) == 0
    assert "verb-noun pairs" in capsys.readouterr().out
