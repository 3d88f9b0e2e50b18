"""Fetch a task's raw files, from a URL or from Kaggle with the user's account."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import tenacity

from rollout.runtime.child_environment import KAGGLE, NETWORK, child_environment
from rollout.runtime.http import download_client, proxy_hint
from tasks.checksum import sha256_of
from tasks.entry import Download, Entry
from tasks.raw import unpack

ATTEMPTS = 5
TIMEOUT = httpx.Timeout(30.0)
# Messages of Kaggle's client, and their remedies. Its standard input is closed, so it never waits for an answer.
KAGGLE_REMEDIES = {
    "Authentication required": "create an API token at kaggle.com/settings/api and set KAGGLE_API_TOKEN to it",
    "401": "the token is not valid; create another at kaggle.com/settings/api and set KAGGLE_API_TOKEN to it",
    "403": "accept its rules at kaggle.com/competitions/{slug}/rules, logged in with the account of the token",
    "404": "there is no such competition, or its data is no longer offered",
}


def fetch_raw_files(entry: Entry, folder: Path, say: Callable[[str], None]) -> Path:
    """Fetch the raw files of an entry to `folder`, unless they are there, and return the folder.

    Resumes interrupted downloads. Raises ValueError, with a remedy, if a file cannot be obtained.
    """
    if folder.is_dir() and all(is_whole(folder / file.file, file) for file in entry.downloads):
        return folder
    partial = folder.with_name(f".{folder.name}.partial")
    if folder.is_dir():  # the task's downloads have changed since
        shutil.rmtree(partial, ignore_errors=True)
        os.replace(folder, partial)
    partial.mkdir(parents=True, exist_ok=True)
    for file in entry.downloads:
        download(entry.name, file, partial, say)
    if entry.kaggle is not None:
        download_from_kaggle(entry.name, entry.kaggle, partial, say)
    os.replace(partial, folder)
    return folder


def download(name: str, file: Download, folder: Path, say: Callable[[str], None]) -> None:
    """Download a file to `folder` and check its SHA-256. Raises ValueError."""
    target = folder / file.file
    part = folder / f"{file.file}.part"
    if is_whole(target, file):
        return
    say(f"{name}: fetching {file.url}")
    try:
        for attempt in tenacity.Retrying(
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=tenacity.wait_exponential(max=30),
            retry=tenacity.retry_if_exception(_is_transient),
            reraise=True,
        ):
            with attempt:
                _resume(file.url, part)
    except httpx.HTTPStatusError as error:
        raise ValueError(f"task {name}: {file.url} answered {error.response.status_code}; {_by_hand(name)}") from None
    except httpx.TransportError as error:
        raise ValueError(
            f"task {name}: {file.url} cannot be reached{proxy_hint(file.url)} ({error}); {_by_hand(name)}"
        ) from None
    if not is_whole(part, file):
        got = sha256_of(part)
        part.unlink()
        raise ValueError(
            f"task {name}: {file.url} has the SHA-256 {got}, expected {file.sha256}; it was removed, try again"
        )
    os.replace(part, target)


def is_whole(path: Path, file: Download) -> bool:
    """Return whether a file exists and has the SHA-256 that its task states."""
    return path.is_file() and sha256_of(path) == file.sha256


def _is_transient(error: BaseException) -> bool:
    """Return whether another attempt may succeed after an error."""
    return isinstance(error, httpx.TransportError) or (
        isinstance(error, httpx.HTTPStatusError) and error.response.status_code >= 500
    )


def _resume(url: str, part: Path) -> None:
    """Download the rest of a file of which `part` is the beginning."""
    size = part.stat().st_size if part.is_file() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={size}-"} if size else {})
    with (
        download_client(url, timeout=TIMEOUT, follow_redirects=True) as client,
        client.stream("GET", url, headers=headers) as response,
    ):
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # the file is complete
        response.raise_for_status()
        mode = "ab" if response.status_code == httpx.codes.PARTIAL_CONTENT else "wb"
        with part.open(mode) as file:
            for chunk in response.iter_raw():
                file.write(chunk)


def download_from_kaggle(name: str, slug: str, folder: Path, say: Callable[[str], None]) -> None:
    """Download the files of a competition to `folder` with Kaggle's client. Raises ValueError, with a remedy."""
    say(f"{name}: fetching the competition {slug} from Kaggle")
    command = [sys.executable, "-m", "kaggle", "competitions", "download", "-c", slug, "-p", str(folder), "--quiet"]
    environment = child_environment(*NETWORK, *KAGGLE)
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace"
    )
    output = f"{done.stdout}\n{done.stderr}".strip()
    if "No module named kaggle" in output:
        raise ValueError(
            f"task {name} takes its data from Kaggle, whose client is not installed: "
            f"pip install 'mlagent-jax[kaggle]'; {_by_hand(name)}"
        )
    archive = folder / f"{slug}.zip"
    if done.returncode != 0 or not archive.is_file():
        remedy = next((remedy for message, remedy in KAGGLE_REMEDIES.items() if message in output), "try again")
        raise ValueError(
            f"task {name}: Kaggle does not give the competition {slug}: {(output or 'no answer').splitlines()[0]}; "
            f"{remedy.format(slug=slug)}; {_by_hand(name)}"
        )
    try:
        unpack(archive, folder)
    except ValueError as error:
        archive.unlink()
        raise ValueError(f"task {name}: {error} (it was removed); try again") from error
    archive.unlink()


def _by_hand(name: str) -> str:
    return f"or put files that you have in DIR/{name} and pass --raw DIR"
