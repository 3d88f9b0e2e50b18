"""Answers of small test sets."""

from pathlib import Path

import pytest


@pytest.fixture
def answers_file(tmp_path: Path):
    """Return a function from a file's text to its path."""

    def write(text: str) -> Path:
        file = tmp_path / f"answers_{len(list(tmp_path.iterdir()))}.csv"
        file.write_text(text)
        return file

    return write


@pytest.fixture
def answers(answers_file) -> Path:
    """Four test rows with the labels 3, 1, 1, 0."""
    return answers_file("id,target\n10,3\n11,1\n12,1\n13,0\n")


@pytest.fixture
def named_answers(answers_file) -> Path:
    """Three test rows of the classes elm and oak."""
    return answers_file("id,target\n1,oak\n2,elm\n3,oak\n")
