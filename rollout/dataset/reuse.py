"""Reuse trajectories of another run, or imported ones, instead of collecting."""

from itertools import chain
from pathlib import Path

from rollout.dataset.edits import store_beside
from rollout.errors import CorruptRecord
from rollout.storage.blob_store import BlobStore
from rollout.storage.directory_manifest import link_or_copy
from rollout.storage.trajectories import (
    has_journal,
    iterate_part,
    iterate_trajectories,
    parts_of,
    trajectories_of,
    write_trajectories,
)
from rollout.types import is_folder


def take_over(source: Path, folder: Path, store: BlobStore) -> None:
    """Copy the trajectories of `source` into `folder`, and the files of their workspaces into `store`.

    Args:
        source: A run directory, or a folder of trajectories inside one that has their files in `blobs`.
        folder: The target folder; its existing trajectories stay.
        store: The target store.

    Raises:
        FileNotFoundError: If there are no trajectories.
        CorruptRecord: If a record, or a file that it names, is damaged or missing.
    """
    recorded = trajectories_of(source)
    finished, unfinished = [recorded], {}
    if recorded.is_dir():
        names = parts_of(recorded)
        # Read once: a collection in progress has more the next time.
        unfinished = {name: list(iterate_part(recorded, name)) for name in names if has_journal(recorded, name)}
        finished = [recorded / f"{name}.parquet" for name in names if name not in unfinished]
    files = {
        named
        for trajectory in chain(*map(iterate_trajectories, finished), *unfinished.values())
        for step in trajectory.steps
        for snapshot in (step.before, step.after)
        for named in snapshot.files.items()
    }
    source_store = (store_beside(recorded) if files else None) or store
    digests = {digest for _, digest in files}
    for name, digest in files:
        if is_folder(name):
            digests.update(source_store.files_in(digest).values())
    for digest in sorted(digests):
        blob = source_store.path(digest)
        if not blob.exists():
            raise CorruptRecord(f"blob {blob} is missing; put the `blobs` folder of the run above {source}")
        if store.put_file(blob) != digest:
            raise CorruptRecord(f"blob {blob} does not match its hash; copy it again from its run")
    folder.mkdir(parents=True, exist_ok=True)
    for file in finished:
        target = folder / file.name
        if not target.exists() or target.stat().st_size != file.stat().st_size:  # not finished last time
            link_or_copy(file, target)
    for name, trajectories in unfinished.items():
        write_trajectories(folder / f"{name}.parquet", trajectories)
