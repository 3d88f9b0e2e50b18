"""What an edit has that others may share, taken from episodes of the environment itself."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rollout.dataset.edits import Edit, diff_of, edits_by_trajectory, store_beside
from rollout.sampling.episode import run_episode
from rollout.storage.blob_store import BlobStore
from rollout.types import Trajectory
from tasks.naming import Names


def episode(toys: Any, number: int, *lines: str) -> Trajectory:
    """Returns an episode under names of its own."""
    words = ("maple", "aspen", "elm", "larch")[number]
    names = Names(words, f"{words}_train.csv", f"{words}_test.csv", f"{words}.py")
    instance = replace(toys.instance, names=names)
    done = run_episode(
        toys.environment,
        toys.actor(lines),
        instance,
        trajectory_id=f"{number}",
        seed=number,
        max_steps=len(lines),
        max_seconds=60,
    )
    return asyncio.run(done)


def labels(edits: list[Edit], field: str) -> list[tuple[str, ...]]:
    return [edit.labels[field] for edit in edits]


def test_same_edits_under_other_names_are_the_same(toys: Any) -> None:
    better = toys.edit("SCRIPT", "{}.py", validation=0.7, correct=7)
    first = episode(toys, 0, better.replace("{}.py", "birch.py"))
    other = episode(toys, 1, better.replace("{}.py", "spruce.py"))
    files = [one.steps[0].after.files for one in (first, other)]
    assert files[0]["birch.py"] != files[1]["spruce.py"]  # for the data have other names in them
    (one,), (two,) = edits_by_trajectory([first, other], toys.store)
    assert one.labels == two.labels and one.instruction == two.instruction
    assert all(len(one.labels[field]) == 1 for field in ("diffs", "scripts", "workspaces"))


def test_refused_edit_has_no_diff_and_stays_where_it_was(toys: Any) -> None:
    refused = toys.respond("Edit Script (AI)", script_name="SCRIPT", edit_instruction="Sing.", save_name="oak.py")
    ran = toys.edit("SCRIPT", "oak.py", validation=0.7)
    ((first, second, third),) = edits_by_trajectory([episode(toys, 0, refused, ran, refused)], toys.store)
    assert first.labels["diffs"] == () == first.labels["scripts"]
    assert first.labels["workspaces"] == ("toy",)
    assert second.labels["workspaces"] != first.labels["workspaces"]
    assert third.labels["workspaces"] == second.labels["workspaces"]


def test_copy_of_a_file_leads_nowhere_new(toys: Any) -> None:
    ran = toys.edit("SCRIPT", "oak.py", validation=0.7)
    copy = toys.respond("Copy File", source="oak.py", destination="yew.py")
    again = toys.edit("SCRIPT", "fir.py", validation=0.7)
    ((first, second),) = edits_by_trajectory([episode(toys, 0, ran, copy, again)], toys.store)
    assert first.labels["scripts"] == second.labels["scripts"]
    assert first.labels["workspaces"] == second.labels["workspaces"]


def test_without_the_store_scripts_are_not_counted(toys: Any) -> None:
    ((edit,),) = edits_by_trajectory([episode(toys, 0, toys.edit("SCRIPT", "oak.py", validation=0.7))], None)
    assert "scripts" not in edit.labels and "workspaces" not in edit.labels and edit.labels["diffs"]


def test_trajectories_come_in_the_order_of_their_ids_and_only_those_with_edits(toys: Any) -> None:
    ran = [episode(toys, n, toys.edit("SCRIPT", "oak.py", validation=0.6 + n / 10)) for n in range(3)]
    idle = episode(toys, 3, toys.respond("Final Answer", final_answer="Done."))
    assert edits_by_trajectory([ran[2], idle, ran[0], ran[1]], None) == edits_by_trajectory(ran, None)
    assert len(edits_by_trajectory([*ran, idle], None)) == 3


@pytest.mark.parametrize(
    ("feedback", "diff"),
    [
        ("Saved oak.py:\n-a = 1\n+a = 2\n+\nvalidation mae: 1.0\n-3 is no line of it", "-a = 1\n+a = 2\n+"),
        ("Saved oak.py:\n-x = read('a.csv')\n+x = 1\nError: oak.py crashed.", "-x = read('FILE')\n+x = 1"),
        ("Saved oak.py:\n-a\n+b\n[70 characters cut]\nc = 3\nvalidation mae: 1.0", "-a\n+b\n[70 characters cut]"),
        ("Error: the edit changed nothing\nBest so far: oak.py 0.5", ""),
    ],
)
def test_diff_is_read_from_the_feedback(feedback: str, diff: str) -> None:
    assert diff_of(feedback) == diff


def test_store_is_the_one_of_the_run_around(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "evaluate" / "sft"
    folder.mkdir(parents=True)
    assert store_beside(folder) is None
    digest = BlobStore(tmp_path / "run" / "blobs").put(b"x")
    found = store_beside(folder)
    assert found is not None and found.get(digest) == b"x"
