"""The split of a table has every class on both sides, and so has the split of its initial script where that matters."""

import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import GroupShuffleSplit

from rollout.task_tools.from_table.column_roles import column_roles
from rollout.task_tools.from_table.folder import NewTaskSpec, write_folder
from rollout.task_tools.from_table.split_seed import seed_of_split
from rollout.task_tools.from_table.user_table import UserTable, read_user_table
from tasks.split import by_group, shuffled


def read(folder: Path, rows: pd.DataFrame, metric: str, **sides: str | None) -> UserTable:
    folder.mkdir(exist_ok=True)
    rows.to_csv(folder / "table.csv", index=False)
    return read_user_table(folder / "table.csv", "y", metric, None, **sides)


def first_validation(table: UserTable, folder: Path, monkeypatch: pytest.MonkeyPatch, **sides: str | None) -> float:
    """Return the validation score of the table's initial script."""
    spec = NewTaskSpec("rare", folder / "table.csv", "y", table.metric, folder, **sides)
    write_folder(spec, table, column_roles(table), folder)
    for part in ("public", "private"):
        (folder / part).mkdir()
    runpy.run_path(str(folder / "prepare.py"))["prepare"](folder / "raw", folder / "public", folder / "private")
    monkeypatch.chdir(folder / "public")
    return runpy.run_path(str(folder / "train.py"))["score"]


def test_a_class_that_only_late_rows_have_is_refused(tmp_path: Path) -> None:
    labels = ["old"] * 50 + ["new", "old"] * 25
    rows = pd.DataFrame({"x": np.random.default_rng(0).normal(size=100), "sold": range(100), "y": labels})
    rows.to_csv(tmp_path / "table.csv", index=False)
    table = read_user_table(tmp_path / "table.csv", "y", "accuracy", None, time="sold")
    assert seed_of_split(table, 90) == 0
    with pytest.raises(
        ValueError, match="class 'new' is not in early and late training rows alike; leave its rows out"
    ):
        seed_of_split(table, 60)


@pytest.mark.parametrize("metric", ["log_loss", "auc"])
@pytest.mark.parametrize("grouped", [True, False])
def test_the_script_of_a_task_with_a_rare_class_validates_on_all_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str, grouped: bool
) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        patients = rng.integers(0, 20, 200)
        kinds = ["common"] * 200 if metric == "auc" else rng.choice(["common", "usual"], 200).tolist()
        for patient in (2, 7, 11, 12, 16):  # five rows in five groups
            kinds[np.flatnonzero(patients == patient)[0]] = "rare"
        rows = pd.DataFrame({"x": rng.normal(size=200), "patient": patients, "y": kinds})
        sides = {"group": "patient" if grouped else None}
        table = read(tmp_path / str(seed), rows, metric, **sides)
        assert np.isfinite(first_validation(table, tmp_path / str(seed), monkeypatch, **sides))


@pytest.mark.parametrize("metric", ["log_loss", "auc"])
def test_uneven_groups_with_rare_classes_have_a_split_of_the_training_data_with_all_classes(metric: str) -> None:
    """The initial script takes the first of 1000 splits in which no class is missing where the metric needs it."""
    num_split = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        sizes = np.maximum(1, rng.lognormal(2, 1, rng.integers(6, 25))).astype(int)
        groups = np.repeat([f"g{number}" for number in range(len(sizes))], sizes)
        labels = np.full(len(groups), "common", dtype=object)
        for rare in ["rare"] if metric == "auc" else ["rare", "odd"]:
            for group in rng.choice(len(sizes), rng.integers(3, 6), replace=False):
                labels[rng.choice(np.flatnonzero(groups == f"g{group}"))] = rare
        classes = tuple(sorted(set(labels)))
        cells = pd.DataFrame({"group": groups, "target": labels})
        names = {label: label for label in classes}
        table = UserTable(cells, frozenset(), metric, "tabular-classification", "", classes, (), "group", labels=names)
        num_train = round(0.7 * len(cells))
        try:
            chosen = seed_of_split(table, num_train)
        except ValueError:
            continue
        num_split += 1
        order, first_test = by_group(groups.tolist(), shuffled(len(cells), chosen), num_train)
        train = order[:first_test]
        splits = GroupShuffleSplit(1000, test_size=0.25, random_state=0).split(train, None, groups[train])
        parts = [[len(set(labels[train[part]])) == len(classes) for part in split] for split in splits]
        assert any(fit and (val or metric == "log_loss") for fit, val in parts), seed
    assert num_split > 40


def test_few_groups_that_all_have_both_classes_are_enough_for_auc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"x": rng.normal(size=100), "site": np.arange(100) % 5, "y": rng.choice(["no", "yes"], 100)})
    table = read(tmp_path, rows, "auc", group="site")
    assert 0 <= first_validation(table, tmp_path, monkeypatch, group="site") <= 1


def test_many_rare_classes_are_enough_for_log_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pd.DataFrame({"x": np.random.default_rng(0).normal(size=120), "y": [f"c{row % 20}" for row in range(120)]})
    table = read(tmp_path, rows, "log_loss")
    assert np.isfinite(first_validation(table, tmp_path, monkeypatch))


def test_for_auc_the_latest_training_rows_need_both_classes(tmp_path: Path) -> None:
    labels = ["yes", "no"] * 25 + ["no"] * 20 + ["yes", "no"] * 15
    rows = pd.DataFrame({"x": np.random.default_rng(0).normal(size=100), "sold": range(100), "y": labels})
    table = read(tmp_path, rows, "auc", time="sold")
    with pytest.raises(ValueError, match="class 'yes' is not in early and late training rows alike"):
        seed_of_split(table, 70)
    assert seed_of_split(read(tmp_path, rows, "accuracy", time="sold"), 70) == 0


def test_a_class_in_too_few_groups_is_named_as_the_user_spells_it(tmp_path: Path) -> None:
    rows = pd.DataFrame({"x": np.random.default_rng(0).normal(size=100), "site": np.arange(100) % 10})
    rows["y"] = np.where(rows["site"] < 2, "sick", "healthy")
    with pytest.raises(
        ValueError, match=r"class 'sick' is in \d groups to train on and \d to test on, and needs at least 2"
    ):
        seed_of_split(read(tmp_path, rows, "auc", group="site"), 70)
