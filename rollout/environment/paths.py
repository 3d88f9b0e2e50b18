"""The paths that actions name: what they stand for in a workspace, what of it is shown, what is refused."""

import asyncio
import codecs
import re
from collections.abc import Mapping

from rollout.environment.feedback_text import head_lines
from rollout.storage.blob_store import BlobStore
from rollout.storage.directory_manifest import entries_of
from rollout.storage.utf8 import replace_unstorable
from rollout.types import is_folder
from tasks.feedback import shorten
from tasks.task import Instance

FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")  # flat, and never read as an option by a program
MAX_LISTED, LIST_LIMIT = 50, 1000  # names of a folder, characters
HEAD_BYTES = 1 << 20  # as much of a file is shown; of a longer one the whole lines in there


class Refused(Exception):
    """An action that cannot be done as asked; its text is for the agent."""


def plain_name(path: str) -> str:
    """Return the file a path names directly in the workspace, or refuses what lies elsewhere."""
    name = path.strip().removeprefix("./")
    if not FILE_NAME.fullmatch(name):
        raise Refused(f"{shorten(path, 80)!r} is not a file name in the workspace")
    return name


def script_path(path: str) -> str:
    """Return the path, or refuses one that is not a script's."""
    if not path.strip().endswith(".py"):
        raise Refused(f"{shorten(path, 80)!r} is not a script; a script's name ends in .py")
    return path


def existing(files: Mapping[str, str], path: str) -> str:
    """Return the name of a file that stands directly in the workspace, or refuses what does not."""
    name = plain_name(path)
    if f"{name}/" in files:
        raise Refused(f"{name} is a folder")
    if name not in files:
        raise Refused(f"there is no file {name}")
    return name


def writable(instance: Instance, files: Mapping[str, str], path: str) -> str:
    """Return the name of a file to be written directly in the workspace, or refuses what is or lies in the data."""
    folder = path.strip().removeprefix("./").partition("/")[0]
    if f"{folder}/" in files:
        raise Refused(f"{folder}/ is read-only")
    name = plain_name(path)
    if name in instance.read_only:
        raise Refused(f"{name} is read-only")
    return name


def located(store: BlobStore, files: Mapping[str, str], path: str) -> tuple[str, str]:
    """Return the name and the digest of a file in the workspace or in one of its folders, or refuses what is none."""
    name = path.strip().removeprefix("./")
    folder, slash, inside = name.partition("/")
    if not slash or f"{folder}/" not in files:
        name = existing(files, path)
        return name, files[name]
    digest = store.files_in(files[f"{folder}/"]).get(inside)
    if digest is None:
        raise Refused(f"there is no file {shorten(name, 80)}")
    return name, digest


def listed(store: BlobStore, files: Mapping[str, str], path: str) -> str:
    """Return what stands in the workspace or in a folder of it, or refuses what is no folder.

    Of many names the first are told, and how many there are.
    """
    if path.strip() in ("", ".", "./"):
        return "Files: " + ", ".join(sorted(files))
    folder, _, inside = path.strip().removeprefix("./").removesuffix("/").partition("/")
    manifest = files.get(f"{folder}/")
    entries = entries_of(store.files_in(manifest), inside) if manifest else []
    if not entries:
        raise Refused(f"there is no folder {path!r}; the workspace is the folder '.'")
    told = head_lines([replace_unstorable(name) for name in entries[:MAX_LISTED]], LIST_LIMIT)
    if len(told) < len(entries):
        num_folders = sum(map(is_folder, entries))
        counts = ((num_folders, "folder"), (len(entries) - num_folders, "file"))
        words = [f"{number} {what}{'s' * (number > 1)}" for number, what in counts if number]
        told.append(f"... ({', '.join(words)})")
    return f"Files in {'/'.join(filter(None, (folder, inside)))}/: {', '.join(told)}"


async def head(store: BlobStore, name: str, digest: str) -> tuple[str, int]:
    """Return the text of a file, of a long one what `HEAD_BYTES` have, and how many bytes it has in all.

    Refuses what is no text. Raises CorruptRecord.
    """
    size = store.size(digest)
    if size <= HEAD_BYTES:
        content = store.get(digest)
    else:
        # In a thread: the first look at gigabytes takes seconds, in which other episodes are to go on.
        with open(await asyncio.to_thread(store.checked_path, digest), "rb") as file:
            content = file.read(HEAD_BYTES)
        content = content[: content.rfind(b"\n") + 1] or content
    try:
        # Where a long line is cut, so may be its last character.
        return codecs.getincrementaldecoder("utf-8")().decode(content, final=size <= HEAD_BYTES), size
    except UnicodeDecodeError:
        raise Refused(f"{name} is not a text file") from None
