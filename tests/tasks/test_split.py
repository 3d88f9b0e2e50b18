"""Splits by group and by time: no group and no time is on both sides, and no row is lost."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.split import MIN_GROUPS, by_group, by_time, shuffled, time_of, write_split


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


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["1999", "2e3", "2001.5", "2002", "2003"]), min_size=2), st.data())
def test_test_rows_are_later_and_no_time_is_divided(times: list[str], data: st.DataObject) -> None:
    wanted, order = data.draw(st.integers(1, len(times) - 1)), shuffled(len(times), 0)
    if len(set(times)) == 1:
        with pytest.raises(ValueError, match="all rows have the time .*; a split by time needs later rows"):
            by_time(times, order, wanted)
        return
    rows, num_train = by_time(times, order, wanted)
    assert sorted(rows) == list(range(len(times))) and 0 < num_train < len(times)
    train, test = ([float(times[row]) for row in part] for part in np.split(rows, [num_train]))
    assert max(train) < min(test)
    assert abs(num_train - wanted) <= max(map(times.count, times))


def test_neither_order_nor_id_tells_the_time(tmp_path: Path) -> None:
    days = [f"2024-{1 + row // 28:02d}-{1 + row % 28:02d}" for row in range(280)]
    public, private = tmp_path / "public", tmp_path / "private"
    for folder in (public, private):
        folder.mkdir()
    table = pd.DataFrame({"day": days, "target": range(280)})
    write_split(table, public, private, num_train=200, num_test=80, time="day")
    train, test = (pd.read_csv(public / name) for name in ("train.csv", "test.csv"))
    assert train["day"].max() < test["day"].min() and (len(train), len(test)) == (200, 80)
    for part in (train, test):
        order = pd.to_datetime(part["day"]).astype(int).corr(part["id"], method="spearman")
        assert abs(order) < 0.2


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("2023", "2024.5"),
        ("-1", "1e3"),
        ("2024-01-31", "2024-02-01"),
        ("2024-01-31", "2024-01-31T00:01"),
        ("2024-01-31T12:00+02:00", "2024-01-31T11:00Z"),
        ("2024-01-31 09:30:00", "2024-01-31 10:00:00"),
    ],
)
def test_times_are_ordered_by_what_they_mean(earlier: str, later: str) -> None:
    assert time_of(earlier) < time_of(later)


def test_rows_at_the_end_are_the_test_rows_and_all_rows_must_be_used(tmp_path: Path) -> None:
    table = pd.DataFrame({"x": range(100), "target": range(100)})
    folders = tmp_path / "public", tmp_path / "private"
    for folder in folders:
        folder.mkdir()
    write_split(table, *folders, num_train=70, num_test=30, test_is_last=True)
    assert sorted(pd.read_csv(folders[0] / "train.csv")["target"]) == list(range(70))
    assert sorted(pd.read_csv(folders[1] / "answers.csv")["target"]) == list(range(70, 100))
    with pytest.raises(ValueError, match="the table has 100 rows, expected 60 training rows and then 20 test rows"):
        write_split(table, *folders, num_train=60, num_test=20, test_is_last=True)
