"""Splits by group: no group is on both sides, and no row is lost."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.split import MIN_GROUPS, by_group, shuffled, write_split


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["", "a", "b", "c", "d", "e", "f", "7", "07"]), min_size=9), st.data())
def test_a_split_divides_no_group_and_loses_no_row(groups: list[str], data: st.DataObject) -> None:
    sizes = pd.Series([name.lstrip("0") or str(row) + "x" for row, name in enumerate(groups)]).value_counts()
    wanted = data.draw(st.integers(1, len(groups) - 1))
    order = shuffled(len(groups), 0)
    if len(sizes) < MIN_GROUPS:
        with pytest.raises(ValueError, match=f"the rows have {len(sizes)} groups; a split by groups needs at least 5"):
            by_group(groups, order, wanted)
        return
    rows, num_train = by_group(groups, order, wanted)
    assert sorted(rows) == list(range(len(groups))) and 0 < num_train < len(groups)
    train, test = ({groups[row].lstrip("0") for row in part} - {""} for part in np.split(rows, [num_train]))
    assert not train & test
    assert abs(num_train - wanted) <= sizes.max()


def test_the_rows_of_a_patient_are_written_to_one_side(tmp_path: Path) -> None:
    patients = np.random.default_rng(0).integers(0, 40, 300)
    table = pd.DataFrame({"patient": [f"P{p}" for p in patients], "x": range(300), "target": patients % 2})
    public, private = tmp_path / "public", tmp_path / "private"
    for folder in (public, private):
        folder.mkdir()
    write_split(table, public, private, num_train=210, num_test=90, group="patient")
    train, test, answers = (
        pd.read_csv(file) for file in (public / "train.csv", public / "test.csv", private / "answers.csv")
    )
    assert not set(train["patient"]) & set(test["patient"])
    assert len(train) + len(test) == 300 and len(answers) == len(test) and abs(len(test) - 90) < 15
    assert list(train["id"]) == list(range(len(train)))
