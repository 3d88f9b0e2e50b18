"""Turn users' names, paths and commands into text and back."""

import os
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from unicodedata import category

MAX_NAME = 60  # characters of a name that a message shows
MAX_LISTED = 8  # names that a message lists
CONTROL = frozenset({"Cc", "Cs", "Zl", "Zp"})  # control characters, halves of characters, line and paragraph breaks
# A text that YAML reads as it is written, unless it is one of the words.
PLAIN = re.compile(r"(?:\.{1,2}/)?[A-Za-z_/][\w./-]*", re.ASCII)
YAML_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})


def quoted(name: object) -> str:
    """Return a name in quotes, on one line, with its middle cut if it is long."""
    text = repr(str(name))
    return text if len(text) <= MAX_NAME else f"{text[: MAX_NAME // 2]}...{text[-(MAX_NAME // 3) :]}"


def quoted_list(names: Iterable[object]) -> str:
    """Return the first few names in quotes and, if there are more, their number; `none` if there is no name."""
    shown = [quoted(name) for name in names]
    more = f" and {len(shown) - MAX_LISTED} more" if len(shown) > MAX_LISTED else ""
    return (", ".join(shown[:MAX_LISTED]) or "none") + more


def one_line(text: str) -> str:
    """Return a text with its line breaks and control characters escaped, so that one line of a terminal shows it."""
    if text.isprintable():
        return text
    return "".join(char.encode("unicode_escape").decode() if category(char) in CONTROL else char for char in text)


def shell_command(*words: object) -> str:
    """Return a command, on one line, that a shell takes apart into exactly these words."""
    return " ".join(map(_shell_word, map(str, words)))


def setting(key: str, value: str | Sequence[str]) -> str:
    """Return `key=value` as a shell and then the configuration's YAML read it back."""
    written = _yaml(value) if isinstance(value, str) else f"[{', '.join(map(_yaml, value))}]"
    return shell_command(f"{key}={written}")


def _shell_word(word: str) -> str:
    if one_line(word) == word:
        return shlex.quote(word)
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")  # a form that bash, zsh and ksh know
    return f"$'{''.join(char if one_line(char) == char else _octal(char) for char in escaped)}'"


def _octal(char: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in char.encode(errors="surrogateescape"))


def _yaml(text: str) -> str:
    if PLAIN.fullmatch(text) and text.lower() not in YAML_WORDS:
        return text
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    escaped = (f"\\u{ord(char):04x}" if one_line(char) != char or char in "\ufffe\uffff" else char for char in text)
    return f'"{"".join(escaped)}"'


def user_path(text: str) -> Path:
    """Return a path that a user wrote, with `~` and `~name` replaced by the home folder of a user that there is."""
    return Path(os.path.expanduser(text))


def replace_unstorable(text: str) -> str:
    """Return `text` with a question mark for each lone surrogate, which JSON can spell but UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode()
