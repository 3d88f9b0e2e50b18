"""Classes of a user's table are equal exactly if their labels are, and what may be a mistake is said."""

from pathlib import Path

import pytest

from rollout.task_tools.from_table.user_table import UserTable, read_user_table


def read(folder: Path, labels: list[str]) -> UserTable:
    """Return a table of 60 rows that repeats these labels as its target."""
    file = folder / "flats.csv"
    rows = (f"{n * n},{30 + n * 7 % 11},{labels[n % len(labels)]}" for n in range(60))
    file.write_text("\n".join(["n,area,label", *rows]) + "\n", newline="")
    return read_user_table(file, "label", "accuracy", None)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["0", "1", "1.0"], ("0", "1")),
        (["0.5", "1", "1.5"], ("0.5", "1.0", "1.5")),
        (["TRUE", "true", "False"], ("0", "1")),
        (["01", "02", "1"], ("01", "02", "1")),
        (["9007199254740992", "9007199254740993"], ("9007199254740992", "9007199254740993")),
        (["0.12345678901234567890", "0.12345678901234567891"], ("0.12345678901234567890", "0.12345678901234567891")),
        (["16%", "20%"], ("16%", "20%")),
    ],
)
def test_labels_are_one_class_only_if_they_are_equal(tmp_path: Path, labels: list[str], classes: tuple) -> None:
    assert read(tmp_path, labels).classes == classes


@pytest.mark.parametrize(
    ("labels", "classes", "note"),
    [
        (
            ["yes", "no", "?"],
            ("?", "no", "yes"),
            "'?' in column 'label' counts as a class; pass --na '?' if it means missing",
        ),
        (["yes", "Yes", "no "], ("Yes", "no", "yes"), "'Yes' and 'yes' in column 'label' count as two classes"),
    ],
)
def test_a_class_that_may_be_a_mistake_is_said(tmp_path: Path, labels: list[str], classes: tuple, note: str) -> None:
    table = read(tmp_path, labels)
    assert table.classes == classes
    assert table.notes == (note,)


def test_a_class_with_a_line_break_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        read(tmp_path, ["yes", '"not\ryet"'])
    said = str(caught.value)
    assert "\n" not in said and str(tmp_path / "flats.csv") in said
    assert r"class 'not\ryet' of column 'label' has a line break; write it on one line" in said
