"""The options state one problem, a folder holds one problem, and the order of rows says nothing of their targets."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlagent_jax.solving.options import SolveLayout, SolveOptions
from mlagent_jax.solving.problem import shuffled_rows, task_name
from mlagent_jax.solving.same_problem import keep_or_clear, mark_prepared, problem_identity
from rollout.task_tools.from_table.user_table import read_user_table


def write_csv(file: Path, target: list[object]) -> Path:
    rng = random.Random(0)
    lines = ["size,y", *(f"{rng.random():.4f},{value}" for value in target)]
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.mark.parametrize(
    ("target", "metric"),
    [
        (["yes", "no"] * 40, "auc"),
        ([0, 1] * 40, "auc"),
        (["a", "b", "c", "d"] * 20, "accuracy"),
        ([1, 2, 3, 4] * 20, "accuracy"),
        ([row / 7 for row in range(80)], "rmse"),
        (list(range(80)), "rmse"),
        ([0, 1, 2, 3] * 20 + [14], "rmse"),
    ],
)
def test_the_metric_fits_the_target(tmp_path: Path, target: list[object], metric: str) -> None:
    table = read_user_table(write_csv(tmp_path / "t.csv", target), "y", None, None)
    assert table.metric == metric
    assert table.notes[0].startswith(f"the metric is {metric}, ")


@pytest.mark.parametrize(
    ("odd", "fault"),
    [
        ("12a", "rmse needs numbers, but column 'y' holds '12a' in row 5"),
        ("$1,234.00", "rmse needs numbers, but column 'y' holds '\\$1,234.00' in row 5"),
    ],
)
def test_a_faulty_number_among_many_is_named(tmp_path: Path, odd: str, fault: str) -> None:
    target: list[object] = [f"{100 + row / 7:.2f}" for row in range(80)]
    target[4] = f'"{odd}"'
    with pytest.raises(ValueError, match=fault):
        read_user_table(write_csv(tmp_path / "t.csv", target), "y", None, None)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("flats.csv", "flats"),
        ("My flats (2).csv.gz", "my_flats_2"),
        ("2024.csv", "table_2024"),
        ("\u00fc.csv", "table"),
    ],
)
def test_a_tasks_name_is_made_of_the_files(file: str, name: str) -> None:
    assert task_name(Path(file)) == name


def test_neither_the_order_nor_the_ids_of_all_rows_tell_the_target(tmp_path: Path) -> None:
    table = read_user_table(write_csv(tmp_path / "t.csv", list(range(400))), "y", "rmse", None)
    rows = shuffled_rows(table.cells, seed=0)
    assert sorted(rows["id"].astype(int)) == list(range(400))
    assert abs(np.corrcoef(rows["id"].astype(float), rows["target"].astype(float))[0, 1]) < 0.15
    assert sorted(rows["target"]) == sorted(table.cells["target"])


def test_a_folder_keeps_the_problem_that_it_holds_and_clears_another(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "t.csv", list(range(80)))
    options = SolveOptions(out=tmp_path / "out", csv=table, target="y", metric="rmse")
    layout = SolveLayout(options.out)
    for folder in (layout.task, layout.data, layout.parts):
        folder.mkdir(parents=True)
    mark_prepared(layout, problem_identity(options))
    keep_or_clear(replace(options, minutes=5.0, steps=3, agent="scripted"), layout)
    assert layout.task.exists()
    layout.search.write_text("")
    for other in (replace(options, metric="mae"), replace(options, holdout=0.4), replace(options, seed=1)):
        with pytest.raises(ValueError, match="is on other data, or on the same data with other options"):
            keep_or_clear(other, layout)
    table.write_text(table.read_text().replace("0.1", "0.2"))
    with pytest.raises(ValueError, match="is on other data"):
        keep_or_clear(options, layout)
    layout.search.unlink()
    keep_or_clear(options, layout)
    assert not any(folder.exists() for folder in (layout.task, layout.data, layout.parts))


def test_options_keep_their_meaning_in_another_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "t.csv", list(range(80)))
    options = SolveOptions(out=Path("out"), csv=Path("t.csv"), target="y")
    absolute = options.absolute()
    assert absolute.csv == tmp_path / "t.csv"
    monkeypatch.chdir("/")
    absolute.require_files()
    with pytest.raises(ValueError, match="there is no file t.csv; check --csv"):
        options.require_files()
