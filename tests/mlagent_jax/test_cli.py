"""The command `mlagent`: its subcommands run the project's commands and describe themselves on one screen."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlagent_jax.cli import COMMANDS, main

ROOT = Path(__file__).parents[2]
LINES, COLUMNS = 40, 100
NESTED = [
    *(("tasks", name) for name in ("list", "show", "prepare", "new", "grade", "validate", "export", "micro")),
    *(("data", name) for name in ("view", "diversity", "select", "export", "import")),
    *(("executor", name) for name in ("doctor", "run")),
]


def mlagent(*arguments: str, python: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Return the outcome of the real command, on a terminal of 100 columns."""
    command = (sys.executable, *python, "-m", "mlagent_jax.cli", *arguments)
    environment = {**os.environ, "COLUMNS": str(COLUMNS)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def height(text: str) -> int:
    """Return the number of lines that a terminal shows the text in."""
    return sum(max(1, math.ceil(len(line) / COLUMNS)) for line in text.splitlines())


def test_help_lists_the_commands_on_one_screen() -> None:
    done = mlagent("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"  {name} " in done.stdout for name in COMMANDS)
    assert height(done.stdout) <= LINES
    assert mlagent().stdout == done.stdout


@pytest.mark.parametrize("arguments", [*((name,) for name in COMMANDS), *NESTED], ids=" ".join)
def test_help_of_a_command_names_it_fits_one_screen_and_loads_no_jax(arguments: tuple[str, ...]) -> None:
    done = mlagent(*arguments, "--help", python=("-X", "importtime"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: mlagent {' '.join(arguments)} ")
    assert "python -m" not in done.stdout
    assert height(done.stdout) <= LINES
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "argparse" in loaded
    assert not {"jax", "vllm", "torch", "transformers"} & loaded


def test_commands_with_a_configuration_point_to_all_keys() -> None:
    for name in ("train", "compile"):
        assert "--help-keys" in mlagent(name, "--help").stdout
        assert "  ppo.num_updates=39\n" in mlagent(name, "--help-keys").stdout


@pytest.mark.parametrize(
    ("name", "hint"),
    [("trian", "did you mean train?"), ("dataset", "did you mean data?"), ("x", "expected one of train")],
)
def test_unknown_command_is_one_line_with_the_nearest_name(
    name: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: unknown command {name}; {hint}") and said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "ppo.num_update=3"), "error: unknown key ppo.num_update; did you mean ppo.num_updates?\n"),
        (("compile",), "error: got 0 topologies"),
        (("convert",), "usage: mlagent convert [-h] --out DIR [--license FILE] FILE\n"),
        (("tasks", "show", "house_prices"), "mlagent tasks: "),
        (("data", "view", "nowhere"), "mlagent data: "),
        (("server", "--model", "nowhere"), "error: "),
        (("executor", "run", "nowhere.py"), "mlagent executor: "),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_exit_code_and_message_of_a_command_are_kept(arguments: tuple[str, ...], words: str) -> None:
    done = mlagent(*arguments)
    assert done.returncode == 2
    assert words in done.stderr and "Traceback" not in done.stderr
