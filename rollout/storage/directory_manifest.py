"""Folders of data in a blob store: manifests that list a folder's files, and trees of links made from them."""

import contextlib
import filecmp
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from rollout.storage.atomic_write import replacing, temporary_path


def manifest_of(digests: Mapping[str, str]) -> bytes:
    """Return the manifest of a folder: relative paths and digests of its files, sorted, as JSON."""
    return json.dumps(sorted(digests.items())).encode()


def read_manifest(manifest: bytes) -> dict[str, str]:
    """Return the digests of a folder's files by relative path, sorted."""
    return dict(json.loads(manifest))


def entries_of(digests: Mapping[str, str], inside: str) -> list[str]:
    """Return the sorted entries of one folder of a manifest; the names of folders end in a slash.

    Args:
        digests: The manifest.
        inside: The folder's relative path without a final slash, `` for the whole tree. A path that is not a folder has
            no entries.
    """
    prefix = f"{inside}/" if inside else ""
    below = (path[len(prefix) :].partition("/") for path in digests if path.startswith(prefix))
    return sorted({name + slash for name, slash, _ in below})


def files_below(folder: Path) -> dict[str, os.stat_result]:
    """Return the status of every file below a folder by relative path.

    Raises:
        ValueError: If an entry, a link included, is neither a regular file nor a folder.
        OSError: If the folder cannot be read.
    """
    if folder.is_symlink():
        raise ValueError(f"{folder} is a link, expected a folder; replace it by the folder that it points to")
    files: dict[str, os.stat_result] = {}
    pending = [""]
    while pending:
        inside = pending.pop()
        with os.scandir(f"{folder}/{inside}") as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{inside}{entry.name}/")
                elif entry.is_file(follow_symlinks=False):
                    files[inside + entry.name] = entry.stat(follow_symlinks=False)
                else:
                    kind = "a link" if entry.is_symlink() else "no regular file"
                    raise ValueError(f"{entry.path} is {kind}, expected files and folders only; remove or replace it")
    return files


def make_tree(folder: Path, files: Mapping[str, Path]) -> None:
    """Make `folder` from `files`, given by relative path, even if another process makes the same folder.

    The folder appears complete or not at all. Every user may list it, regardless of the umask of this process.

    Raises:
        OSError: If it cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(folder)
    try:
        for inside in sorted({"", *(str(parent) for path in files for parent in Path(path).parents)}):
            (temporary / inside).mkdir(exist_ok=True)
            (temporary / inside).chmod(0o755)
        for path, source in files.items():
            link_or_copy(source, temporary / path)
        try:
            os.rename(temporary, folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was first
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_tree_of(statuses: Mapping[str, os.stat_result], folder: Path, files: Mapping[str, Path]) -> bool:
    """Return whether a folder holds exactly the given files.

    Args:
        statuses: The result of `files_below` for the folder.
        folder: The folder.
        files: The expected files by relative path.
    """
    return statuses.keys() == files.keys() and all(
        os.path.samestat(statuses[path], os.stat(source)) or filecmp.cmp(folder / path, source, shallow=False)
        for path, source in files.items()
    )


def link_or_copy(source: Path | str, target: Path | str) -> None:
    """Make `target`, which must not exist, a hard link to `source`, or a copy of it if it cannot be linked.

    It is copied if it is on another file system, has as many links as the file system allows, belongs to another user
    who forbids links, or is not readable by everybody, since every user must be able to read stored files.

    Raises:
        OSError: If the file can be neither linked nor copied.
    """
    with contextlib.suppress(OSError):
        if os.stat(source).st_mode & 0o004:
            return os.link(source, target)
    with replacing(Path(target)) as temporary:
        shutil.copyfile(source, temporary)
        temporary.chmod(0o644)
