"""Users' names, paths and commands in messages."""

import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlagent_jax.configuration.loading import _override as override
from tasks.quoting import one_line, quoted, quoted_list, setting, shell_command, user_path


@given(st.text(max_size=200))
def test_a_quoted_name_is_one_short_line(name: str) -> None:
    assert len(quoted(name).splitlines()) == 1
    assert len(quoted(name)) <= 60


def test_a_list_of_names_tells_how_many_it_leaves_out() -> None:
    assert quoted_list(["a", "b\nc"]) == r"'a', 'b\nc'"
    assert quoted_list([]) == "none"
    assert quoted_list(range(10)).endswith("'7' and 2 more")


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
AWKWARD = [
    "two words",
    "it's",
    '"',
    "$HOME `id` $(id)",
    "a\nb",
    "\x1b[31m",
    "\\n",
    "",
    "~",
    "-x",
    "é😀",
    "a  b",
    "!",
    "#",
]


@given(st.lists(TEXTS.filter(lambda text: one_line(text) == text), min_size=1))
def test_a_shell_reads_the_words_of_a_printed_command(words: list[str]) -> None:
    assert shlex.split(shell_command(*words)) == words


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/table.csv") == tmp_path / "table.csv"
    assert user_path("a/~b.csv") == Path("a/~b.csv")
    assert user_path("~nobody-here/a") == Path("~nobody-here/a")  # a folder may have such a name


@settings(max_examples=20, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=30))
@example(AWKWARD)
def test_bash_reads_the_words_of_a_printed_command_of_one_line(words: list[str]) -> None:
    command = shell_command("printf", r"%s\0", *words)
    assert len(command.splitlines()) == 1 and one_line(command) == command
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == words


def test_every_path_of_a_command_line_may_begin_with_a_tilde() -> None:
    root = Path(__file__).parents[2]
    for path in (
        file for name in ("tasks", "rollout", "mlagent_jax", "benchmarks") for file in root.glob(f"{name}/**/*.py")
    ):
        assert "type=Path" not in path.read_text(), f"{path} reads a path without user_path"


@given(TEXTS)
@example("true")
@example("1e5")
@example("a: b # c")
@example("\ufeff\x7f\u2028\\n")
def test_a_printed_setting_is_read_back(text: str) -> None:
    (word,) = shlex.split(setting("collect.source", text))
    tree: dict = {}
    override(tree, word)
    assert tree == {"collect": {"source": text}}
    (word,) = shlex.split(setting("tasks.paths", [text, "b"]))
    override(tree, word)
    assert tree["tasks"] == {"paths": [text, "b"]}


def test_an_ordinary_setting_is_printed_as_it_is_typed() -> None:
    assert setting("collect.source", "runs/mine") == "collect.source=runs/mine"
    assert setting("tasks.paths", ["my_tasks"]) == "'tasks.paths=[my_tasks]'"


@given(st.text())
def test_a_line_stays_one_line_and_ordinary_text_stays_itself(text: str) -> None:
    assert len(f"{one_line(text)}.".splitlines()) == 1
    assert one_line("Größe 2 €, 東京 😀.csv") == "Größe 2 €, 東京 😀.csv"
    assert "\x1b" not in one_line(text)
