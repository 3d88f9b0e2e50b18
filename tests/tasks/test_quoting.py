"""Users' names, paths and commands in messages."""

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.quoting import quoted, quoted_list, shell_command, user_path


@given(st.text(max_size=200))
def test_a_quoted_name_is_one_short_line(name: str) -> None:
    assert len(quoted(name).splitlines()) == 1
    assert len(quoted(name)) <= 60


def test_a_list_of_names_tells_how_many_it_leaves_out() -> None:
    assert quoted_list(["a", "b\nc"]) == r"'a', 'b\nc'"
    assert quoted_list([]) == "none"
    assert quoted_list(range(10)).endswith("'7' and 2 more")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1))
def test_a_shell_reads_the_words_of_a_printed_command(words: list[str]) -> None:
    assert shlex.split(shell_command(*words)) == words


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/table.csv") == tmp_path / "table.csv"
    assert user_path("a/~b.csv") == Path("a/~b.csv")
    assert user_path("~nobody-here/a") == Path("~nobody-here/a")  # a folder may have such a name
