"""Errors are one line with a remedy, whatever names they hold."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.error_line import error_line

AWKWARD = "a 'b' \"c\" $HOME\nd\x1b[31m"


def failed(path: str, mode: str = "r") -> str:
    with pytest.raises(OSError) as raised:
        open(path, mode).close()
    return error_line(raised.value)


def test_a_failed_call_of_the_system_has_its_path_and_a_remedy(tmp_path: Path) -> None:
    assert failed(f"{tmp_path}/none") == f"{tmp_path}/none: No such file or directory; check the path"
    assert failed(str(tmp_path), "w") == f"{tmp_path}: Is a directory; give a file, not a folder"
    assert failed(f"{tmp_path}/{AWKWARD}").startswith(f"{tmp_path}/a 'b' \"c\" $HOME\\nd\\x1b[31m: No such file")


def test_other_errors_keep_their_words_on_one_line() -> None:
    assert error_line(ValueError("a  b\n  c\x07")) == "a  b c\\x07"
    assert error_line(OSError(9, "Bad file descriptor", 3)) == "Bad file descriptor"  # type: ignore[arg-type]
    assert error_line(ValueError()).startswith("ValueError without a message")


def test_a_failed_call_without_a_path_or_with_two_has_a_remedy(tmp_path: Path) -> None:
    assert error_line(OSError(28, "No space left on device")) == "No space left on device; free some space"
    assert "; check the address, and that the server is up" in error_line(ConnectionRefusedError(111, "Refused"))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b/c").touch()
    with pytest.raises(OSError) as raised:
        os.rename(tmp_path / "a", tmp_path / "b")
    expected = f"{tmp_path}/a -> {tmp_path}/b: Directory not empty; choose another path, or remove it"
    assert error_line(raised.value) == expected


def test_a_codecs_words_are_not_the_explanation() -> None:
    with pytest.raises(UnicodeDecodeError) as raised:
        b"ab\xff".decode()
    assert error_line(raised.value) == "byte 2 of a file is not UTF-8 text; save it as UTF-8"


@pytest.mark.parametrize(
    "command",
    [
        ["tasks", "grade", "house_price", "{path}", "--data", "{path}"],
        ["tasks", "prepare", "house_price", "--path", "{path}", "--out", "{path}"],
        ["mlagent_jax.export", "--run", "{path}", "--out", "{path}"],
        ["mlagent_jax.train", "--config", "{path}"],
        ["rollout.dataset", "select", "{path}"],
        ["rollout.executor", "run", "{path}"],
        ["rollout.server", "--model", "{path}"],
    ],
    ids=lambda command: "-".join(command[:2]),
)
def test_every_command_names_an_awkward_path_on_one_line(command: list[str], tmp_path: Path) -> None:
    words = [word.format(path=f"~/{AWKWARD}") for word in command]
    environment = {**os.environ, "HOME": str(tmp_path), "COLUMNS": "400"}
    done = subprocess.run([sys.executable, "-m", *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert str(tmp_path) in line and "\x1b" not in line and "$HOME" in line
