"""The paper's tasks on pictures, leaves and citations, prepared from twins of what is delivered."""

import importlib.util
import json
import math
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from rollout.executor.interpreter import TASK_PYTHON
from rollout.task_tools.preparation import prepare_all, write_data
from tasks.grading import InvalidSubmission, grade
from tasks.naming import Names
from tasks.raw import open_raw
from tasks.registry import find, load, task_of
from tasks.task import Instance, Task

pytestmark = pytest.mark.timeout(600)

PAGES, LEAVES, PAPERS, RADAR, WHALES = (
    "denoising-dirty-documents",
    "leaf-classification",
    "ogbn-arxiv",
    "statoil-iceberg-classifier-challenge",
    "whale-categorization-playground",
)
# The public files and the file of answers; but for the papers they are MLE-bench's, its archives unpacked.
LAYOUT = {
    PAGES: (["sampleSubmission.csv", "test", "train", "train_cleaned"], "answers.csv"),
    LEAVES: (["images", "sample_submission.csv", "test.csv", "train.csv"], "test.csv"),
    PAPERS: (["edges.csv", "features.npy", "test.csv", "train.csv", "valid.csv"], "answers.csv"),
    RADAR: (["sample_submission.csv", "test.json", "train.json"], "test.csv"),
    WHALES: (["sample_submission.csv", "test", "train", "train.csv"], "test.csv"),
}
CHANCE = {PAGES: 0.5, LEAVES: math.log(99), PAPERS: 0.1, RADAR: math.log(2), WHALES: 0.05}


def module_beside(name: str):
    """Return the module of the twins, which is next to this file and in no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


twins = module_beside("twins_pictures")
TWINS = twins.TWINS


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """Folder with the raw files of all twins."""
    folder = tmp_path_factory.mktemp("raw")
    for name, write in TWINS.items():
        (folder / name).mkdir()
        write(folder / name, np.random.default_rng(0))
    return folder


@pytest.fixture(scope="module")
def tasks(raw, tmp_path_factory) -> dict[str, Task]:
    """The tasks with the data that their prepare scripts write, their initial scripts not yet run."""
    out = tmp_path_factory.mktemp("data")
    return {name: task_of(find(name), write_data(find(name), raw / name, out)) for name in TWINS}


@pytest.fixture(params=TWINS)
def task(request, tasks) -> Task:
    return tasks[request.param]


def answers_of(task: Task) -> pd.DataFrame:
    return pd.read_csv(task.private / task.answers, dtype=str)


def packed(submission: pd.DataFrame) -> bytes:
    return submission.to_csv(index=False).encode()


def test_the_files_are_those_that_mle_bench_writes(task):
    public, answers = LAYOUT[task.name]
    assert sorted(path.name for path in task.public.iterdir()) == public
    assert [path.name for path in task.private.iterdir()] == [answers] == [task.answers]
    assert sorted(path.name for path in task.public.parent.iterdir()) == ["private", "public"]


def test_the_sample_submission_fits_and_says_nothing(task):
    samples = list(task.public.glob("sample*.csv"))
    assert len(samples) == (task.name != PAPERS)
    for sample in samples:
        there = pd.read_csv(sample, dtype=str)
        assert there.drop(columns=task.submission.id).drop_duplicates().shape[0] == 1
        assert there[task.submission.id].equals(answers_of(task)[task.submission.id])
        assert math.isfinite(grade(task, sample.read_bytes()))


def test_the_answers_as_a_submission_have_the_best_score(task):
    best = packed(answers_of(task))
    assert grade(task, best) == pytest.approx({"maximize": 1.0, "minimize": 0.0}[task.direction], abs=1e-9)
    with pytest.raises(InvalidSubmission, match="1 of .* test ids are missing"):
        grade(task, packed(answers_of(task).drop(index=0)))


def test_the_problem_says_what_is_wanted(task):
    text = Instance(task, Names("", "a.csv", "b.csv", "start.py")).problem()
    better = "higher" if task.direction == "maximize" else "lower"
    assert text.endswith(f"\nMetric: {task.metric}, {better} is better.") and "start.py" in text
    assert len(text.split()) <= 120
    assert all(name.split(".")[0].split("_")[0] in text for name in LAYOUT[task.name][0])


def test_pages_are_split_as_mle_bench_splits_them(tasks, raw):
    task, names = tasks[PAGES], sorted(f"{number}.png" for number in range(1, 21))
    order = np.random.RandomState(0).permutation(20)
    test, train = ({names[row] for row in rows} for rows in (order[:4], order[4:]))
    assert {path.name for path in (task.public / "test").iterdir()} == test
    for folder in ("train", "train_cleaned"):
        assert {path.name for path in (task.public / folder).iterdir()} == train
        with zipfile.ZipFile(raw / PAGES / f"{folder}.zip") as delivered:
            for path in (task.public / folder).iterdir():
                assert path.read_bytes() == delivered.read(f"{folder}/{path.name}")
    with zipfile.ZipFile(raw / PAGES / "train_cleaned.zip") as delivered:
        clean = {name: np.asarray(Image.open(delivered.open(f"train_cleaned/{name}"))) for name in test}
    answers = answers_of(task)
    assert len(answers) == sum(page.size for page in clean.values())
    for name, page in clean.items():
        row, column = np.argwhere(page != page[0, 0])[0]
        found = answers["value"][answers["id"] == f"{Path(name).stem}_{row + 1}_{column + 1}"]
        assert found.astype(float).tolist() == [page[row, column] / 255]


def test_radar_pictures_are_split_as_mle_bench_splits_them(tasks):
    task = tasks[RADAR]
    train, test = (json.loads((task.public / f"{name}.json").read_text()) for name in ("train", "test"))
    order = np.random.RandomState(0).permutation(60)
    assert [row["id"] for row in test] == [f"{number:08x}" for number in order[:12]]
    assert [row["id"] for row in train] == [f"{number:08x}" for number in order[12:]]
    assert {tuple(row) for row in test} == {("id", "band_1", "band_2", "inc_angle")}
    assert {tuple(row) for row in train} == {("id", "band_1", "band_2", "inc_angle", "is_iceberg")}
    assert answers_of(task).columns.tolist() == ["id", "is_iceberg"]
    assert answers_of(task)["id"].tolist() == [row["id"] for row in test]


def test_leaves_are_split_as_mle_bench_splits_them(tasks, raw):
    task = tasks[LEAVES]
    with zipfile.ZipFile(raw / LEAVES / "train.csv.zip") as delivered:
        old = pd.read_csv(delivered.open("train.csv"))
    order = np.random.RandomState(0).permutation(len(old))
    num_test = math.ceil(len(old) * 0.1)
    train, test = (pd.read_csv(task.public / f"{name}.csv") for name in ("train", "test"))
    pd.testing.assert_frame_equal(test, old.iloc[order[:num_test]].drop(columns="species").reset_index(drop=True))
    pd.testing.assert_frame_equal(train, old.iloc[order[num_test:]].reset_index(drop=True))
    answers = pd.read_csv(task.private / "test.csv")
    assert answers.columns.tolist() == ["id", *task.submission.columns] and len(task.submission.columns) == 99
    assert answers.set_index("id").idxmax(axis=1).tolist() == old["species"].iloc[order[:num_test]].tolist()
    assert {path.stem for path in (task.public / "images").iterdir()} == set(old["id"].astype(str))


def test_whales_are_split_as_mle_bench_splits_them(tasks, raw):
    task = tasks[WHALES]
    old = pd.read_csv(raw / WHALES / "train.csv").set_index("Image")["Id"]
    train = pd.read_csv(task.public / "train.csv").set_index("Image")["Id"]
    answers = pd.read_csv(task.private / "test.csv").set_index("Image")["Id"]
    assert sorted([*train.index, *answers.index]) == sorted(old.index)
    assert train.equals(old[train.index])
    for folder, images in (("train", train.index), ("test", answers.index)):
        assert {path.name for path in (task.public / folder).iterdir()} == set(images)
    known = set(train)
    assert answers.tolist() == [old[image] if old[image] in known else "new_whale" for image in answers.index]
    assert set(answers.index) == {old.index[row] for row in rows_of_whales_for_the_test(old.to_numpy())}


def rows_of_whales_for_the_test(names: np.ndarray) -> list[int]:
    """Return the draws of pandas' sample and scikit-learn's train_test_split with the seed 0, using only NumPy."""
    rng, test, rest = np.random.default_rng(0), [], []
    for name in pd.unique(names):
        rows = np.flatnonzero(names == name)
        if len(rows) > 1:
            order = np.random.RandomState(0).permutation(len(rows))
            test.append(rows[order[1]])
            rest += [rows[place] for place in order[2:]]
        elif rng.random() >= 0.9:
            test.append(rows[0])
    rest.sort()
    return [*test, *(rest[place] for place in np.random.RandomState(0).permutation(len(rest))[: -(-len(rest) // 10)])]


def test_papers_are_split_by_their_years_and_keep_their_rows(tasks, raw):
    task = tasks[PAPERS]
    with zipfile.ZipFile(raw / PAPERS / "arxiv.zip") as delivered:

        def numbers(name: str) -> np.ndarray:
            return pd.read_csv(delivered.open(f"arxiv/raw/{name}.csv.gz"), header=None, compression="gzip").to_numpy()

        labels, years = numbers("node-label")[:, 0], numbers("node_year")[:, 0]
        features, edges = numbers("node-feat"), numbers("edge")
    sets = {name: pd.read_csv(task.public / f"{name}.csv") for name in ("train", "valid", "test")}
    assert "target" not in sets["test"] and sum(map(len, sets.values())) == len(labels)
    for name, (first, last) in {"train": (0, 2017), "valid": (2018, 2018), "test": (2019, 9999)}.items():
        assert sets[name]["id"].tolist() == np.flatnonzero((first <= years) & (years <= last)).tolist()
        assert sets[name]["year"].tolist() == years[sets[name]["id"]].tolist()
    answers = pd.read_csv(task.private / "answers.csv")
    assert answers["id"].tolist() == sets["test"]["id"].tolist()
    for table in (sets["train"], sets["valid"], answers):
        assert table["target"].tolist() == labels[table["id"]].tolist()
    found = np.load(task.public / "features.npy")
    assert found.dtype == np.float32 and np.array_equal(found, features.astype(np.float32))
    assert np.array_equal(pd.read_csv(task.public / "edges.csv")[["citing", "cited"]].to_numpy(), edges)


def test_the_archive_of_the_whole_competition_gives_the_same(raw, tasks, tmp_path):
    folder = tmp_path / "raw" / LEAVES
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / f"{LEAVES}.zip", "w") as whole:
        for path in (raw / LEAVES).iterdir():
            whole.write(path, path.name)
    aside = write_data(find(LEAVES), folder, tmp_path)
    for file in ("public/train.csv", "public/test.csv", "private/test.csv"):
        assert (aside / file).read_bytes() == (tasks[LEAVES].public.parent / file).read_bytes()


def test_unpacked_files_give_the_same(raw, tasks, tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    with open_raw(raw / RADAR, folder) as files:
        shutil.copy(files.path("train.json"), folder)
    aside = write_data(find(RADAR), folder, tmp_path)
    for file in ("public/train.json", "public/test.json", "private/test.csv"):
        assert (aside / file).read_bytes() == (tasks[RADAR].public.parent / file).read_bytes()


@pytest.mark.parametrize("name", [name for name in TWINS if name != PAPERS])
def test_what_mle_bench_has_prepared_is_taken_over(tasks, tmp_path, name):
    from py7zr import SevenZipFile

    prepared = tmp_path / "raw" / name / "prepared"
    shutil.copytree(tasks[name].public, prepared / "public")
    shutil.copytree(tasks[name].private, prepared / "private")
    if name == RADAR:  # MLE-bench packs it again
        for file in list((prepared / "public").iterdir()):
            with SevenZipFile(prepared / "public" / f"{file.name}.7z", "w", filters=twins.QUICK) as archive:
                archive.write(file, file.name)
            file.unlink()
    aside = write_data(find(name), tmp_path / "raw" / name, tmp_path)
    assert files(aside / "public") == files(tasks[name].public)
    assert files(aside / "private") == files(tasks[name].private)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pack(file: Path, **members: bytes) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def spoil_features(raw: Path) -> None:
    with zipfile.ZipFile(raw / "arxiv.zip") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    pack(raw / "arxiv.zip", **{**members, "arxiv/raw/node-feat.csv.gz": b"x"})


WRONG = {
    "no file": (
        LEAVES,
        lambda raw: (raw / "train.csv.zip").unlink(),
        "there is no train.csv in .*, nor in an archive there",
    ),
    "no zip": (
        LEAVES,
        lambda raw: (raw / "images.zip").write_bytes(b"x" * 99),
        "images.zip cannot be read .BadZipFile",
    ),
    "no 7z": (RADAR, lambda raw: (raw / "train.json.7z").write_bytes(b"x" * 99), "train.json.7z cannot be read .Bad7z"),
    "another zip": (
        PAPERS,
        lambda raw: pack(raw / "arxiv.zip", mag=b""),
        "there is no arxiv in .*, nor in an archive there",
    ),
    "no column": (
        WHALES,
        lambda raw: (raw / "train.csv").write_text("Image,Whale\n"),
        "no column Id, only Image, Whale; expected Image, Id",
    ),
    "no photograph": (
        WHALES,
        lambda raw: (raw / "train.csv").write_text("Image,Id\na.jpg,w_1\nb.jpg,w_1\n"),
        "2 of 2 files are missing from .*train: a.jpg, b.jpg; download it again",
    ),
    "no page": (
        PAGES,
        lambda raw: pack(raw / "train_cleaned.zip", **{"train_cleaned/1.png": b""}),
        "19 of 20 files are missing from .*train_cleaned: 10.png",
    ),
    "no JSON": (
        RADAR,
        lambda raw: (raw / "train.json").write_text("{"),
        "train.json is not JSON .*; download it again",
    ),
    "no table": (
        PAPERS,
        spoil_features,
        "node-feat.csv.gz cannot be read .BadGzipFile",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_raw_files_are_said_in_a_line_and_leave_nothing(raw, tmp_path, what):
    name, spoil, reason = WRONG[what]
    shutil.copytree(raw / name, tmp_path / "raw" / name)
    spoil(tmp_path / "raw" / name)
    with pytest.raises(ValueError, match=reason) as caught:
        write_data(find(name), tmp_path / "raw" / name, tmp_path / "out")
    assert len(str(caught.value).splitlines()) == 1
    assert list((tmp_path / "out").iterdir()) == []


def prepare(names: list[str], python: Path, raw: Path, out: Path) -> None:
    command = [sys.executable, "-m", "tasks", "prepare", *names, "--raw", raw, "--out", out, "--python", python]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def check_measured(task: Task) -> None:
    """The script learns, what it says of itself can be trusted, and it leaves room."""
    assert task.is_better(task.m_init, CHANCE[task.name])
    assert abs(task.validation_init - task.m_init) < 0.3
    assert task.m_init not in (0.0, 1.0)


@pytest.mark.parametrize("name", [LEAVES, PAPERS])
def test_the_scripts_on_tables_learn(tasks, measured, name):
    check_measured(measured(tasks[name]))


@pytest.mark.slow
def test_the_tables_are_prepared_and_their_scripts_measured_by_the_command(raw, tmp_path):
    prepare([LEAVES, PAPERS], TASK_PYTHON, raw, tmp_path)
    for name in (LEAVES, PAPERS):
        check_measured(load(name, tmp_path))
        assert load(name, tmp_path).noise == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("name", [PAGES, RADAR, WHALES])
def test_the_pictures_are_prepared_and_their_scripts_measured_by_the_command(raw, tmp_path, name):
    prepare([name], Path(sys.executable), raw, tmp_path)
    check_measured(load(name, tmp_path))
    assert load(name, tmp_path).noise > 0.0


def test_a_task_environment_without_torch_is_said_so(raw, tmp_path):
    with pytest.raises(ValueError, match="has no module torch, which train.py imports; install it there"):
        prepare_all([find(RADAR)], tmp_path, TASK_PYTHON, raw)
