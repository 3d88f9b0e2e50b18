"""Resolve the paths in an action's arguments: find files, read or list them, and refuse invalid paths."""

import asyncio
import codecs
import re
from collections.abc import Mapping, Sequence

from rollout.environment.feedback_text import head_lines
from rollout.storage.blob_store import BlobStore
from rollout.storage.directory_manifest import entries_of
from rollout.types import is_folder
from tasks.feedback import shorten
from tasks.quoting import one_line, replace_unstorable
from tasks.task import Instance

FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")  # no folder, and no program mistakes it for an option
MAX_LISTED = 50  # names in the listing of a folder
HEAD_BYTES = 1 << 20  # the part of a file that can be shown; a longer file is cut after a whole line


class Refused(Exception):
    """Raised if an action cannot be performed; the message is for the agent."""


def plain_name(path: str) -> str:
    """Return the name of a file directly in the workspace. Raises Refused for any other path."""
    name = path.strip().removeprefix("./")
    if not FILE_NAME.fullmatch(name):
        raise Refused(f"{shorten(path, 80)!r} is not a file name in the workspace")
    return name


def script_path(path: str) -> str:
    """Return the path. Raises Refused unless it names a Python script."""
    if not path.strip().endswith(".py"):
        raise Refused(f"{shorten(path, 80)!r} is not a script; a script's name ends in .py")
    return path


def existing(files: Mapping[str, str], path: str) -> str:
    """Return the name of an existing file directly in the workspace. Raises Refused for any other path."""
    name = plain_name(path)
    if f"{name}/" in files:
        raise Refused(f"{name} is a folder")
    if name not in files:
        raise Refused(f"there is no file {name}")
    return name


def writable(instance: Instance, files: Mapping[str, str], path: str) -> str:
    """Return the name of a file to write directly in the workspace. Raises Refused for data and files inside it."""
    folder = path.strip().removeprefix("./").partition("/")[0]
    if f"{folder}/" in files:
        raise Refused(f"{folder}/ is read-only")
    name = plain_name(path)
    if name in instance.read_only:
        raise Refused(f"{name} is read-only")
    return name


def located(store: BlobStore, files: Mapping[str, str], path: str) -> tuple[str, str]:
    """Return the name and digest of a file in the workspace or one of its folders. Raises Refused if there is none."""
    name = path.strip().removeprefix("./")
    folder, slash, inside = name.partition("/")
    if not slash or f"{folder}/" not in files:
        name = existing(files, path)
        return name, files[name]
    digest = store.files_in(files[f"{folder}/"]).get(inside)
    if digest is None:
        raise Refused(f"there is no file {shorten(one_line(name), 80)}")
    return name, digest


def listed(store: BlobStore, files: Mapping[str, str], path: str, limit: int) -> str:
    """Return the listing of the workspace or of one of its folders. Raises Refused if there is no such folder.

    A listing of more than `limit` characters shows the first names and the numbers of folders and files.
    """
    if path.strip() in ("", ".", "./"):
        return f"Files: {_names(sorted(files), limit)}"
    folder, _, inside = path.strip().removeprefix("./").removesuffix("/").partition("/")
    manifest = files.get(f"{folder}/")
    entries = entries_of(store.files_in(manifest), inside) if manifest else []
    if not entries:
        raise Refused(f"there is no folder {path!r}; the workspace is the folder '.'")
    return f"Files in {one_line('/'.join(filter(None, (folder, inside))))}/: {_names(entries, limit)}"


def _names(entries: Sequence[str], limit: int) -> str:
    shown = head_lines([one_line(replace_unstorable(name)) for name in entries[:MAX_LISTED]], limit)
    if len(shown) < len(entries):
        num_folders = sum(map(is_folder, entries))
        counts = ((num_folders, "folder"), (len(entries) - num_folders, "file"))
        totals = [f"{number} {kind}{'s' * (number > 1)}" for number, kind in counts if number]
        shown.append(f"... ({', '.join(totals)})")
    return ", ".join(shown)


async def head(store: BlobStore, name: str, digest: str) -> tuple[str, int]:
    """Return the text of a file, at most the lines within `HEAD_BYTES`, and the file's size in bytes.

    Raises Refused if the file is not text, and CorruptRecord.
    """
    size = store.size(digest)
    if size <= HEAD_BYTES:
        content = store.get(digest)
    else:
        # In a thread, because the first check of a file of gigabytes takes seconds and would stop all other episodes.
        with open(await asyncio.to_thread(store.checked_path, digest), "rb") as file:
            content = file.read(HEAD_BYTES)
        content = content[: content.rfind(b"\n") + 1] or content
    try:
        # The cut may split the last character of a long line.
        return codecs.getincrementaldecoder("utf-8")().decode(content, final=size <= HEAD_BYTES), size
    except UnicodeDecodeError:
        raise Refused(f"{one_line(name)} is not a text file") from None
