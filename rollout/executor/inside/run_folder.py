"""The folder of a sandbox without file systems of its own: its guard makes, counts and removes it.

The script that writes to it is not trusted: the folder may be deeper than any path, and its modes may forbid looking
into it. Like the guard, this file runs with nothing but the standard library.
"""

import contextlib
import os

WORKSPACE, TEMPORARY = "workspace", "tmp"


def make_folder(folder: str, request: dict) -> None:
    """Make the folder of a run with two writable folders inside, and links to the read-only data."""
    os.mkdir(folder, 0o711)
    for name in (WORKSPACE, TEMPORARY):
        os.mkdir(f"{folder}/{name}", 0o700)
        if request["uid"] is not None:
            os.chown(f"{folder}/{name}", request["uid"], request["uid"])
    for name, path in request["read_only"].items():
        os.symlink(path, f"{folder}/{WORKSPACE}/{name.rstrip('/')}")


def exceeds_limits(request: dict, folder: str) -> bool:
    """Return whether one of the writable folders holds more than is allowed, or hides its content."""
    for name in (WORKSPACE, TEMPORARY):
        pending, seen, num_bytes = [f"{folder}/{name}"], set(), 0
        while pending:
            try:
                with os.scandir(pending.pop()) as entries:
                    for entry in entries:
                        status = entry.stat(follow_symlinks=False)
                        num_bytes += 0 if status.st_ino in seen else status.st_blocks * 512
                        seen.add(status.st_ino)
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(entry.path)
                        if num_bytes > request["workspace_bytes"] or len(seen) > request["max_files"]:
                            return True
            except (FileNotFoundError, NotADirectoryError):
                continue  # it has changed since it was listed
            except OSError:
                return True
    return False


def remove_folder(folder: str) -> None:
    """Remove a folder of any depth by moving nested folders up before looking into them."""
    number = 0
    while os.path.isdir(folder):
        for entry in list(os.scandir(folder)):
            with contextlib.suppress(PermissionError):
                os.chmod(entry.path, 0o700)
            for inner in list(os.scandir(entry.path)):
                if inner.is_dir(follow_symlinks=False):
                    with contextlib.suppress(PermissionError):
                        os.chmod(inner.path, 0o700)
                    os.rename(inner.path, f"{folder}/{number}")
                    number += 1
                else:
                    os.unlink(inner.path)
            os.rmdir(entry.path)
        if not os.listdir(folder):
            os.rmdir(folder)
