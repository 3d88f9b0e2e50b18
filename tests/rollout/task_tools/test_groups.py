"""Groups of rows that a random split puts on both sides: found if they have one target, and only then."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.task_tools.groups import TARGET, agreement, both_sides, known_share, shared_groups, similarity
from rollout.task_tools.validation.public_tables import copies
from tasks.task_tables import TaskTables


def halves(**columns: object) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a random half of the rows as training rows, and the other half as test rows."""
    rows = pd.DataFrame({name: np.asarray(cells).astype(str) for name, cells in columns.items()})
    rows = rows.rename(columns={"target": TARGET}).sample(frac=1, random_state=0)
    return rows.head(len(rows) // 2), rows.tail(len(rows) - len(rows) // 2)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.floats(0.02, 0.98))
def test_random_groups_agree_by_chance_and_patients_fully(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    patients = pd.Series(rng.integers(0, 300, 2000))
    of_patient = rng.random(300) < share
    of_patient[:2] = True, False
    assert agreement(patients, pd.Series(of_patient[patients])) == 1.0
    assert abs(agreement(patients, pd.Series(rng.random(2000) < share))) < 0.2


def test_patients_on_both_sides_are_found_and_categories_are_not() -> None:
    rng = np.random.default_rng(0)
    patients = rng.integers(0, 500, 4000)
    ill = (rng.random(500) < 0.1)[patients]
    sides = halves(
        patient=patients,
        plan=rng.integers(0, 4, 4000),
        age=rng.integers(20, 80, 4000),
        x=rng.normal(0, 1, 4000).round(4),
        visit=np.arange(4000),
        target=ill,
    )
    (found,) = shared_groups(*sides)
    assert found.column == "patient" and found.share > 0.9
    assert shared_groups(*sides, max_share=1.0) == []


def test_groups_with_one_number_as_their_target_are_found() -> None:
    rng = np.random.default_rng(0)
    houses = rng.integers(0, 400, 1000)
    found = shared_groups(*halves(house=houses, target=rng.normal(0, 1, 400).round(3)[houses]))
    assert [each.column for each in found] == ["house"]
    assert shared_groups(*halves(house=houses, target=rng.normal(0, 1, 1000))) == []


def test_measurements_that_separate_classes_are_no_groups_but_patients_are() -> None:
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 3, 300)
    lengths = (1 + 2 * kinds + rng.normal(0, 0.4, 300)).round(1)
    assert agreement(pd.Series(lengths), pd.Series(kinds)) > 0.9
    assert shared_groups(*halves(length=lengths, target=kinds)) == []
    assert shared_groups(*halves(millimeters=(10 * lengths).round() * 3, target=kinds)) == []
    patients = rng.integers(0, 60, 300)
    for ill in (patients < 30, rng.random(60)[patients] < 0.5):
        (found,) = shared_groups(*halves(patient=patients, target=ill))
        assert found.column == "patient"


def test_groups_with_similar_numbers_as_targets_are_found_if_asked_for() -> None:
    rng = np.random.default_rng(0)
    patients = rng.integers(0, 60, 480)
    lengths = rng.uniform(0, 10, 480).round(1)
    pressure = rng.normal(120, 20, 60)[patients] + rng.normal(0, 2, 480)
    sides = halves(patient=[f"P{patient}" for patient in patients], length=lengths, target=pressure)
    assert shared_groups(*sides) == []
    (found,) = shared_groups(*sides, with_similar=True)
    assert found.column == "patient" and not found.are_equal
    assert similarity(pd.Series(patients), pd.Series(rng.normal(0, 1, 480))) == pytest.approx(0, abs=0.2)
    by_length = lengths**2 + rng.normal(0, 1, 480)
    assert shared_groups(*halves(length=lengths, target=by_length), with_similar=True) == []


def test_a_group_is_known_in_any_spelling() -> None:
    train = pd.DataFrame({"patient": ["P7", "8", "", "x y"]})
    test = pd.DataFrame({"patient": ["p7 ", "8.0", "008", "", "X\xa0Y", "P70", "80"]})
    assert known_share(train, test, "patient") == pytest.approx(4 / 7)


def test_missing_values_are_no_group() -> None:
    rng = np.random.default_rng(0)
    patients = np.where(np.arange(1000) % 2, rng.integers(0, 100, 1000).astype(str), "")
    train, test = halves(patient=patients, target=[int(name or -1) % 7 for name in patients])
    (found,) = shared_groups(train, test)
    assert found.column == "patient" and found.share == pytest.approx(0.5, abs=0.1)


def test_account_numbers_with_the_same_first_digits_are_no_copies() -> None:
    accounts = [10**17 + row for row in range(40)]
    train = pd.DataFrame({"id": range(20), "account": accounts[:20], "target": 1}).astype(str)
    test = pd.DataFrame({"id": range(20, 40), "account": accounts[20:]}).astype(str)
    answers = pd.DataFrame({"id": range(20, 40), "target": 1}).astype(str)
    tables = TaskTables("id", answers, ("target",), {"test.csv": test}, {"train.csv": train}, "train.csv", ("target",))
    assert copies(both_sides(tables)) == (0.0, 0.0)
    same = test.assign(account=[f"{account}.0" for account in accounts[:20]])
    assert copies(both_sides(replace(tables, tests={"test.csv": same}))) == (1.0, 0.0)
