"""Raw files that are fetched once: from an address, or from Kaggle with the user's own account."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import tenacity

from tasks.checksum import sha256_of
from tasks.entry import Download, Entry
from tasks.raw import unpack

ATTEMPTS = 5
TIMEOUT = httpx.Timeout(30.0)
# What the client says, and what to do; it never waits for an answer, its input is closed.
KAGGLE_REMEDIES = {
    "Authentication required": "make an API token at kaggle.com/settings/api and set KAGGLE_API_TOKEN to it",
    "401": "the token is not valid; make another at kaggle.com/settings/api and set KAGGLE_API_TOKEN to it",
    "403": "accept its rules at kaggle.com/competitions/{slug}/rules, logged in with the account of the token",
    "404": "there is no such competition, or its data are no longer offered",
}


def fetched(entry: Entry, folder: Path, say: Callable[[str], None]) -> Path:
    """Return `folder` with the raw files of an entry in it, fetched unless they are there.

    What was begun before goes on where it stopped. Raises ValueError, with what to do, when a file cannot be had.
    """
    if folder.is_dir() and all(is_whole(folder / file.file, file) for file in entry.downloads):
        return folder
    aside = folder.with_name(f".{folder.name}.partial")
    if folder.is_dir():  # and what the task states has changed since
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(folder, aside)
    aside.mkdir(parents=True, exist_ok=True)
    for file in entry.downloads:
        download(entry.name, file, aside, say)
    if entry.kaggle is not None:
        from_kaggle(entry.name, entry.kaggle, aside, say)
    os.replace(aside, folder)
    return folder


def download(name: str, file: Download, folder: Path, say: Callable[[str], None]) -> None:
    """Put a file into `folder`, whole and with the content that its task states. Raises ValueError."""
    target = folder / file.file
    part = folder / f"{file.file}.part"
    if is_whole(target, file):
        return
    say(f"{name}: fetching {file.url}")
    try:
        for attempt in tenacity.Retrying(
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=tenacity.wait_exponential(max=30),
            retry=tenacity.retry_if_exception(_passes),
            reraise=True,
        ):
            with attempt:
                _go_on(file.url, part)
    except httpx.HTTPStatusError as error:
        raise ValueError(f"task {name}: {file.url} answered {error.response.status_code}; {_by_hand(name)}") from None
    except httpx.TransportError as error:
        raise ValueError(f"task {name}: {file.url} cannot be reached ({error}); {_by_hand(name)}") from None
    if not is_whole(part, file):
        found = sha256_of(part)
        part.unlink()
        raise ValueError(
            f"task {name}: {file.url} has the SHA-256 {found}, expected {file.sha256}; it was removed, try again"
        )
    os.replace(part, target)


def is_whole(path: Path, file: Download) -> bool:
    """Return whether a file is there, with the content that its task states."""
    return path.is_file() and sha256_of(path) == file.sha256


def _passes(error: BaseException) -> bool:
    """Return whether an error is one that may be gone the next time."""
    return isinstance(error, httpx.TransportError) or (
        isinstance(error, httpx.HTTPStatusError) and error.response.status_code >= 500
    )


def _go_on(url: str, part: Path) -> None:
    there = part.stat().st_size if part.is_file() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={there}-"} if there else {})
    with httpx.stream("GET", url, headers=headers, timeout=TIMEOUT, follow_redirects=True) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # it is all there
        response.raise_for_status()
        mode = "ab" if response.status_code == httpx.codes.PARTIAL_CONTENT else "wb"
        with part.open(mode) as file:
            for chunk in response.iter_raw():
                file.write(chunk)


def from_kaggle(name: str, slug: str, folder: Path, say: Callable[[str], None]) -> None:
    """Put the files of a competition into `folder`, by Kaggle's own client. Raises ValueError, with what to do."""
    say(f"{name}: fetching the competition {slug} from Kaggle")
    command = [sys.executable, "-m", "kaggle", "competitions", "download", "-c", slug, "-p", str(folder), "--quiet"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    said = f"{done.stdout}\n{done.stderr}".strip()
    if "No module named kaggle" in said:
        raise ValueError(
            f"task {name} takes its data from Kaggle, whose client is not installed: "
            f"pip install 'mlagent-jax[kaggle]'; {_by_hand(name)}"
        )
    archive = folder / f"{slug}.zip"
    if done.returncode != 0 or not archive.is_file():
        remedy = next((what for sign, what in KAGGLE_REMEDIES.items() if sign in said), "try again")
        raise ValueError(
            f"task {name}: Kaggle does not give the competition {slug}: {(said or 'no answer').splitlines()[0]}; "
            f"{remedy.format(slug=slug)}; {_by_hand(name)}"
        )
    try:
        unpack(archive, folder)
    except ValueError as error:
        archive.unlink()
        raise ValueError(f"task {name}: {error} (it was removed)") from error
    archive.unlink()


def _by_hand(name: str) -> str:
    return f"or give files that you have by --raw DIR, in DIR/{name}"
