"""Folders of data as a store keeps them: a manifest that says which files are in one, and a tree of links to those."""

import contextlib
import filecmp
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from rollout.storage.atomic_write import aside_of, to_disk


def manifest_of(digests: Mapping[str, str]) -> bytes:
    """Return the content that stands for a folder: its files' relative paths with their digests, sorted, as JSON."""
    return json.dumps(sorted(digests.items())).encode()


def read_manifest(manifest: bytes) -> dict[str, str]:
    """Return the digests of a folder's files by their relative paths, sorted."""
    return dict(json.loads(manifest))


def entries_of(digests: Mapping[str, str], inside: str) -> list[str]:
    """Return what stands directly in a folder of a manifest, sorted, the names of folders with a slash at their end.

    `inside` is a relative path without a slash at its end, `` for the whole; there is nothing in what is no folder.
    """
    prefix = f"{inside}/" if inside else ""
    below = (path[len(prefix) :].partition("/") for path in digests if path.startswith(prefix))
    return sorted({name + slash for name, slash, _ in below})


def files_below(folder: Path) -> dict[str, os.stat_result]:
    """Return the status of every file below a folder by relative path.

    Raises ValueError where anything is neither a regular file nor a folder, links included; OSError.
    """
    if folder.is_symlink():
        raise ValueError(f"{folder} is a link, expected a folder; put what it leads to in its place")
    found: dict[str, os.stat_result] = {}
    pending = [""]
    while pending:
        inside = pending.pop()
        with os.scandir(f"{folder}/{inside}") as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{inside}{entry.name}/")
                elif entry.is_file(follow_symlinks=False):
                    found[inside + entry.name] = entry.stat(follow_symlinks=False)
                else:
                    kind = "a link" if entry.is_symlink() else "no regular file"
                    raise ValueError(f"{entry.path} is {kind}, expected files and folders alone; remove or replace it")
    return found


def make_tree(folder: Path, files: Mapping[str, Path]) -> None:
    """Return once `folder` stands whole, made of `files` by relative path, whoever else makes the same.

    Every user may list it, whatever this one's umask says. Raises OSError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = aside_of(folder)
    try:
        for inside in sorted({"", *(str(parent) for path in files for parent in Path(path).parents)}):
            (aside / inside).mkdir(exist_ok=True)
            (aside / inside).chmod(0o755)
        for path, source in files.items():
            link_or_copy(source, aside / path)
        try:
            os.rename(aside, folder)
        except OSError:
            if not folder.is_dir():  # else somebody else was first
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def is_tree_of(found: Mapping[str, os.stat_result], folder: Path, files: Mapping[str, Path]) -> bool:
    """Return whether a folder, in which `found` was found, has these files and no other."""
    return found.keys() == files.keys() and all(
        os.path.samestat(found[path], os.stat(source)) or filecmp.cmp(folder / path, source, shallow=False)
        for path, source in files.items()
    )


def link_or_copy(source: Path | str, target: Path | str) -> None:
    """Return once `target`, which was not there, has the content of `source`. Raises OSError.

    It is the same file where that can be. It is not on another file system, where a file has as many names as one can
    have, where it is somebody else's, or where others may not read it, since every user is to read what is stored.
    """
    with contextlib.suppress(OSError):
        if os.stat(source).st_mode & 0o004:
            return os.link(source, target)
    aside = aside_of(Path(target))
    try:
        shutil.copyfile(source, aside)
        os.chmod(aside, 0o644)
        to_disk(aside)
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)
