"""The catalog's entries, and what `load` and `prepare` say of tasks that are not as they should be."""

import json
import shutil
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from tasks import __main__ as door
from tasks import registry

# The toy task's scripts need no packages, so any interpreter runs them at once.
TASK_YAML = """\
name: toy
kind: tabular-regression
split: train
metric: mae
direction: minimize
m_best: 0.0
m_best_source: by construction
packages: [numpy]
data: made up
"""
PREPARE = """\
def prepare(public, private):
    (public / "train.csv").write_text("id,x,target\\n0,1,1\\n")
    (public / "test.csv").write_text("id,x\\n1,2\\n2,3\\n")
    (private / "answers.csv").write_text("id,target\\n1,2\\n2,3\\n")
"""
TRAIN = """\
import os, sys
rows = open("test.csv").read().split()[1:]
print("threads", os.environ["OMP_NUM_THREADS"])
print("validation mae: 0.2500")
open("submission.csv", "w").write("id,target\\n" + "".join(f"{row.split(',')[0]},2\\n" for row in rows))
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A catalog of one toy task; returns its folder."""
    folder = tmp_path / "catalog" / "toy"
    folder.mkdir(parents=True)
    (folder / "task.yaml").write_text(TASK_YAML)
    (folder / "problem.md").write_text("Guess.\n")
    (folder / "prepare.py").write_text(PREPARE)
    (folder / "train.py").write_text(TRAIN)
    shutil.copy(registry.CATALOG / "split.py", folder.parent)
    monkeypatch.setattr(registry, "CATALOG", folder.parent)
    registry.entries.cache_clear()
    yield folder
    registry.entries.cache_clear()


def prepare(out: Path, *arguments: str) -> int:
    return door.main(["prepare", *arguments, "--out", str(out), "--python", sys.executable])


def test_splits_part_the_catalog():
    train, heldout = registry.names("train"), registry.names("heldout")
    assert len(train) == 5 and len(heldout) == 3
    assert sorted(train + heldout) == sorted(registry.names())


def test_an_unknown_task_is_told_the_nearest():
    with pytest.raises(ValueError, match=r"unknown task 'house_prise' \(nearest: house_price\); the catalog has"):
        registry.load("house_prise", Path("."))


def test_a_task_that_is_not_prepared_says_how_to_prepare_it(tmp_path):
    with pytest.raises(ValueError, match=f"python -m tasks prepare house_price --out {tmp_path}"):
        registry.load("house_price", tmp_path)


def test_a_prepared_task_loads_with_its_measured_scores(toy, tmp_path):
    assert prepare(tmp_path / "data") == 0
    task = registry.load("toy", tmp_path / "data")
    assert (task.m_init, task.validation_init, task.m_best) == (0.5, 0.25, 0.0)
    assert task.script == TRAIN and task.problem == "Guess.\n"
    stated = json.loads((tmp_path / "data/toy/task.json").read_text())
    assert (stated["num_train"], stated["num_test"]) == (1, 2)
    assert list(stated["packages"]) == ["numpy"]


def test_preparing_again_does_nothing_until_the_catalog_changes(toy, tmp_path, capsys):
    out = tmp_path / "data"
    prepare(out)
    before = (out / "toy/task.json").stat().st_mtime_ns
    prepare(out)
    assert "prepared already" in capsys.readouterr().out
    assert (out / "toy/task.json").stat().st_mtime_ns == before

    (toy / "train.py").write_text(TRAIN.replace(",2\\n", ",3\\n").replace("0.2500", "0.5000"))
    with pytest.raises(ValueError, match="another version of the catalog"):
        registry.load("toy", out)
    prepare(out)
    assert registry.load("toy", out).validation_init == 0.5


def test_a_damaged_record_is_said_and_mended(toy, tmp_path):
    out = tmp_path / "data"
    prepare(out)
    (out / "toy/task.json").write_text('{"m_init": ')
    with pytest.raises(ValueError, match="is damaged"):
        registry.load("toy", out)
    assert prepare(out) == 0
    assert registry.load("toy", out).m_init == 0.5


def test_what_an_interrupted_run_left_is_no_obstacle(toy, tmp_path):
    left = tmp_path / "data" / ".toy.partial" / "public"
    left.mkdir(parents=True)
    assert prepare(tmp_path / "data") == 0
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["toy"]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("raise SystemExit('no luck')", "train.py ended with status 1: no luck"),
        ("print('done')", "train.py printed no line 'validation mae: SCORE'"),
        ("print('validation mae: 1.0')", "train.py left no submission.csv"),
        (
            "print('validation mae: 1.0'); open('submission.csv', 'w').write('id,target\\n1,2\\n')",
            "train.py left an invalid submission.csv: 1 of 2 test ids are missing",
        ),
    ],
)
def test_an_initial_script_that_fails_leaves_nothing_behind(toy, tmp_path, capsys, script, reason):
    (toy / "train.py").write_text(script)
    assert prepare(tmp_path / "data") == 2
    assert capsys.readouterr().err == f"python -m tasks: task toy: {reason}\n"
    assert list((tmp_path / "data").iterdir()) == []


def test_a_missing_data_package_is_named(toy, tmp_path, capsys, monkeypatch):
    def missing(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(door, "version", missing)
    assert prepare(tmp_path / "data") == 2
    assert "task toy takes its data from the package numpy, which is not installed" in capsys.readouterr().err


def test_a_missing_task_environment_is_named(tmp_path, capsys):
    assert door.main(["prepare", "--out", str(tmp_path), "--python", str(tmp_path / "nowhere")]) == 2
    assert f"no task environment at {tmp_path / 'nowhere'}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("m_best: 0.0", "m_best: high", "m_best: Input should be a valid number"),
        ("data: made up", "data: made up\nmbest: 1.0", "mbest: Unexpected keyword argument"),
        ("metric: mae", "metric: maes", r"unknown metric 'maes' \(nearest: mae\)"),
        ("direction: minimize", "direction: maximize", "direction is maximize, but mae is one to minimize"),
        ("name: toy", "name: toys", "the name is 'toys', not that of its folder"),
        ("kind: tabular-regression", "kind: [", "is not YAML"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_file(toy, old, new, reason):
    (toy / "task.yaml").write_text(TASK_YAML.replace(old, new))
    with pytest.raises(ValueError, match=f"{toy / 'task.yaml'}.*{reason}"):
        registry.entries()
