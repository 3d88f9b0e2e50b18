"""Turn users' names, paths and commands into text and back."""

import os
import shlex
from collections.abc import Iterable
from pathlib import Path

MAX_NAME = 60  # characters of a name that a message shows
MAX_LISTED = 8  # names that a message lists


def quoted(name: object) -> str:
    """Return a name in quotes, on one line, with its middle cut if it is long."""
    text = repr(str(name))
    return text if len(text) <= MAX_NAME else f"{text[: MAX_NAME // 2]}...{text[-(MAX_NAME // 3) :]}"


def quoted_list(names: Iterable[object]) -> str:
    """Return the first few names in quotes and, if there are more, their number; `none` if there is no name."""
    shown = [quoted(name) for name in names]
    more = f" and {len(shown) - MAX_LISTED} more" if len(shown) > MAX_LISTED else ""
    return (", ".join(shown[:MAX_LISTED]) or "none") + more


def shell_command(*words: object) -> str:
    """Return a command that a shell takes apart into exactly these words."""
    return shlex.join(map(str, words))


def user_path(text: str) -> Path:
    """Return a path that a user wrote, with `~` and `~name` replaced by the home folder of a user that there is."""
    return Path(os.path.expanduser(text))
