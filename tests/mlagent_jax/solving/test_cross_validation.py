"""Few rows are cross-validated: every row is predicted without it, groups stay whole, and classes keep their shares."""

import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from mlagent_jax.solving.command import main
from mlagent_jax.solving.cross_validation import NUM_FOLDS, NUM_REPEATS, make_folds


def rows_of(num_rows: int, **columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"id": [str(row) for row in range(num_rows)], "target": ["1.5"] * num_rows, **columns})


@pytest.mark.parametrize("num_rows", [30, 37, 299])
def test_each_row_is_held_out_once_in_each_repetition(num_rows):
    repeats = make_folds(rows_of(num_rows), "rmse", "", seed=0)
    assert (len(repeats), {len(folds) for folds in repeats}) == (NUM_REPEATS, {NUM_FOLDS})
    for folds in repeats:
        assert sorted(np.concatenate(folds).tolist()) == list(range(num_rows))
        assert max(map(len, folds)) - min(map(len, folds)) <= 1
    assert any((first != other).any() for first, other in zip(repeats[0], repeats[1], strict=True))


def test_classes_have_the_same_share_in_every_fold():
    labels = ["rare"] * 10 + ["common"] * 60
    for folds in make_folds(rows_of(70).assign(target=labels), "accuracy", "", seed=0):
        assert [Counter(labels[row] for row in fold)["rare"] for fold in folds] == [2] * NUM_FOLDS


def test_groups_are_in_one_fold_and_rows_of_no_group_are_their_own():
    patients = [f"p{row // 4}" if row < 80 else "" for row in range(100)]
    for folds in make_folds(rows_of(100, patient=patients), "rmse", "patient", seed=0):
        fold_of = {row: fold for fold, rows in enumerate(folds) for row in rows.tolist()}
        assert all(len({fold_of[row] for row in range(start, start + 4)}) == 1 for start in range(0, 80, 4))
        assert len({fold_of[row] for row in range(80, 100)}) > 1


def test_a_small_table_is_solved_and_reported_by_cross_validation(tmp_path, capsys):
    rng = np.random.default_rng(0)
    size = rng.uniform(0, 6, 90)
    label = np.where(np.abs(size - 3) < 1.5, "middle", "edge")  # no line tells the classes apart
    pd.DataFrame({"size": size.round(3), "other": rng.normal(size=90).round(3), "place": label}).to_csv(
        tmp_path / "few.csv", index=False
    )
    out = tmp_path / "out"
    options = "--target place --metric accuracy --steps 4 --trajectories 3 --search best-of --seed 2 --minutes 3"
    assert main(["--csv", str(tmp_path / "few.csv"), "--out", str(out), *options.split()]) == 0
    result = json.loads((out / "result.json").read_text())
    report = result["report"]
    assert result["is_cross_validated"] and report["num_rows"] == 90
    assert report["score"]["value"] > report["initial"]["value"] + 0.15
    assert report["score"]["low"] < report["score"]["value"] < report["score"]["high"]
    assert "each predicted without it (cross-validation, a little too good)" in capsys.readouterr().out
    assert not (out / "work/tmp").exists()
