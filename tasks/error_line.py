"""Errors that a user can fix, as one line."""

import errno
import os

from tasks.quoting import one_line

REMEDIES = {
    errno.ENOENT: "check the path",
    errno.EACCES: "choose another path, or let this user use it",
    errno.EPERM: "choose another path, or let this user use it",
    errno.EEXIST: "choose another path, or remove it",
    errno.ENOTEMPTY: "choose another path, or remove it",
    errno.EISDIR: "give a file, not a folder",
    errno.ENOTDIR: "a part of the path is a file; check it",
    errno.EROFS: "choose a path that can be written",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "links of the path lead in a circle; remove one",
    errno.EXDEV: "choose a path on the same disk",
    errno.EIO: "the disk may be damaged; choose another one",
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.ENOMEM: "free some memory",
    errno.EAGAIN: "raise the limit on processes, `ulimit -u`, or start fewer",
    errno.EMFILE: "raise the limit on open files, `ulimit -n`",
    errno.EADDRINUSE: "choose another port",
    errno.ECONNREFUSED: "check the address, and that the server is up",
}


def error_line(error: Exception) -> str:
    """Return one line for an error; a failed call of the system gets the path that it failed on and a remedy."""
    if isinstance(error, OSError) and error.errno and error.strerror:
        names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
        parts = [": ".join([*filter(None, [" -> ".join(names)]), error.strerror]), REMEDIES.get(error.errno, "")]
        return one_line("; ".join(filter(None, parts)))
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} of a file is not {error.encoding.upper()} text; save it as UTF-8"
    return joined(str(error)) or f"{type(error).__name__} without a message; report it with the command"


def joined(text: str) -> str:
    """Return the lines of a text as one line, without control characters; spaces within a line stay."""
    return one_line(" ".join(line.strip() for line in text.splitlines() if line.strip()))
