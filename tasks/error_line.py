"""Errors that a user can fix, as one line."""

import errno
import os

from tasks.quoting import one_line

REMEDIES = {
    errno.ENOENT: "check the path",
    errno.EACCES: "choose another path, or let this user use it",
    errno.EPERM: "choose another path, or let this user use it",
    errno.EISDIR: "give a file, not a folder",
    errno.ENOTDIR: "a part of the path is a file; check it",
    errno.EROFS: "choose a path that can be written",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EMFILE: "raise the limit on open files, `ulimit -n`",
}


def error_line(error: Exception) -> str:
    """Return one line for an error; a failed call of the system gets the path that it failed on and a remedy."""
    if isinstance(error, OSError) and isinstance(error.filename, (str, bytes)) and error.strerror:
        remedy = REMEDIES.get(error.errno or 0, "")
        return one_line(f"{os.fsdecode(error.filename)}: {error.strerror}{'; ' if remedy else ''}{remedy}")
    return joined(str(error))


def joined(text: str) -> str:
    """Return the lines of a text as one line, without control characters; spaces within a line stay."""
    return one_line(" ".join(line.strip() for line in text.splitlines() if line.strip()))
