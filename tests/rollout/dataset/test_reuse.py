"""Trajectories that are taken over from another run: they act here as they did there."""

import asyncio
import dataclasses
from pathlib import Path

import pytest

from rollout.dataset.reuse import take_over
from rollout.errors import CorruptRecord
from rollout.sampling.collection import collect, plan_collection
from rollout.sampling.state_pool import StatePool
from rollout.storage.blob_store import BlobStore
from rollout.storage.shards import Part
from rollout.storage.trajectories import read_trajectories
from tasks import action as grammar


@pytest.fixture
def source(toys, tmp_path: Path) -> Path:
    """A run directory with the trajectories of a toy task, whose files lie in its `blobs`."""
    plans = plan_collection([toys.make_task("a")], 3, 0, lambda task, rng: [])
    actor = toys.actor(
        [
            toys.edit("SCRIPT", "sky.py", correct=9, validation=0.8),
            toys.respond(grammar.FINAL_ANSWER, final_answer="sky.py"),
        ]
    )
    folder = tmp_path / "source"
    work = collect(
        folder / "trajectories", plans, toys.environment, actor, max_steps=3, max_seconds=60.0, num_concurrent=1
    )
    asyncio.run(work)
    toys.store.root.rename(folder / "blobs")
    return folder


@pytest.mark.parametrize("inside", ["", "trajectories"])
def test_trajectories_come_with_the_files_of_their_workspaces(toys, source: Path, tmp_path: Path, inside: str):
    store = BlobStore(tmp_path / "here" / "blobs")
    for _ in range(2):  # a second time changes nothing
        take_over(source / inside, tmp_path / "here" / "trajectories", store)
        found = read_trajectories(tmp_path / "here" / "trajectories")
        assert found == read_trajectories(source / "trajectories")
    pool = StatePool.cut(found, {"a": toys.make_task("a")}, 3, toys.tokenizer)
    assert len(pool) == 6
    for state in pool.states:
        for digest in state.snapshot.files.values():
            assert store.get(digest) == BlobStore(source / "blobs").get(digest)


def test_a_collection_that_stopped_half_way_gives_what_it_has(source: Path, tmp_path: Path):
    whole = read_trajectories(source / "trajectories")
    with Part(source / "trajectories", 1, ["x", "y"]) as part:
        part.add(dataclasses.replace(whole[0], trajectory_id="y"))
    take_over(source, tmp_path / "here", BlobStore(tmp_path / "blobs"))
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == ["part-00000.parquet", "part-00001.parquet"]
    taken = read_trajectories(tmp_path / "here")
    assert taken[:-1] == whole and taken[-1].trajectory_id == "y" and len(taken) == len(whole) + 1


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_file_that_is_not_what_it_was_is_named_and_nothing_is_taken(toys, source: Path, tmp_path: Path, damage: str):
    digest = next(iter(read_trajectories(source / "trajectories")[0].steps[0].before.files.values()))
    blob = BlobStore(source / "blobs").path(digest)
    blob.unlink()
    if damage == "changed":
        blob.write_bytes(b"something else")
    with pytest.raises(CorruptRecord, match=f"{digest[2:]} .*(of the run above|copy it again)"):
        take_over(source, tmp_path / "here", BlobStore(tmp_path / "blobs"))
    assert not (tmp_path / "here").exists()


def test_nothing_to_take_over_says_so(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no trajectories in"):
        take_over(tmp_path, tmp_path / "here", BlobStore(tmp_path / "blobs"))
