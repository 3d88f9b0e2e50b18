"""Trajectories of another run, or imported ones, in place of a collection."""

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
    """Make `folder` hold the trajectories of `source`, and `store` the files that they began and ended with.

    Args:
        source: a run directory, or a folder of trajectories, above which lie its files in `blobs`.
        folder: of the trajectories here; what it has already stays.
        store: of the files here.

    Raises:
        FileNotFoundError: where there are no trajectories.
        CorruptRecord: where the record of one, or a file that it names, is damaged or missing.
    """
    found = trajectories_of(source)
    finished, unfinished = [found], {}
    if found.is_dir():
        names = parts_of(found)
        # Read once: a collection that is still under way has more the next time.
        unfinished = {name: list(iterate_part(found, name)) for name in names if has_journal(found, name)}
        finished = [found / f"{name}.parquet" for name in names if name not in unfinished]
    files = {
        named
        for trajectory in chain(*map(iterate_trajectories, finished), *unfinished.values())
        for step in trajectory.steps
        for snapshot in (step.before, step.after)
        for named in snapshot.files.items()
    }
    theirs = (store_beside(found) if files else None) or store
    digests = {digest for _, digest in files}
    for name, digest in files:
        if is_folder(name):
            digests.update(theirs.files_in(digest).values())
    for digest in sorted(digests):
        blob = theirs.path(digest)
        if not blob.exists():
            raise CorruptRecord(f"blob {blob} is missing; put the `blobs` of the run that {source} is of above it")
        if store.put_file(blob) != digest:
            raise CorruptRecord(f"blob {blob} does not have the content that its name says; copy it anew from its run")
    folder.mkdir(parents=True, exist_ok=True)
    for file in finished:
        target = folder / file.name
        if not target.exists() or target.stat().st_size != file.stat().st_size:  # it was not finished the last time
            link_or_copy(file, target)
    for name, trajectories in unfinished.items():
        write_trajectories(folder / f"{name}.parquet", trajectories)
