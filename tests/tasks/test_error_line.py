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
    assert error_line(OSError(5, "Input/output error")) == "[Errno 5] Input/output error"
    assert error_line(OSError(9, "Bad file descriptor", 3)).startswith("[Errno 9]")  # type: ignore[arg-type]


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
