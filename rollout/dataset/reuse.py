"""Trajectories of another run, or imported ones, in place of a collection."""

from pathlib import Path

from rollout.dataset.edits import store_beside
from rollout.errors import CorruptRecord
from rollout.folders import is_folder, link_or_copy
from rollout.trajectories import iterate_trajectories, trajectories_of
from rollout.workspace import BlobStore


def take_over(source: Path, folder: Path, store: BlobStore) -> None:
    """Makes `folder` hold the trajectories of `source`, and `store` the files that they began and ended with.

    Args:
        source: a run directory, or a folder of trajectories, above which lie its files in `blobs`.
        folder: of the trajectories here; what it has already stays.
        store: of the files here.

    Raises:
        FileNotFoundError: where there are no trajectories.
        CorruptRecord: where the record of one, or a file that it names, is damaged or missing.
    """
    found = trajectories_of(source)
    files = {
        named
        for trajectory in iterate_trajectories(found)
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
        if store.put_file(theirs.path(digest)) != digest:
            raise CorruptRecord(f"blob {theirs.path(digest)} does not have the content that its name says")
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(found.glob("*.parquet")) if found.is_dir() else [found]:
        if not (folder / file.name).exists():
            link_or_copy(file, folder / file.name)
