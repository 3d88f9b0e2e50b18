"""The paper's four tasks of labelled photos, prepared from tiny twins of what their authors and Kaggle deliver."""

import hashlib
import pickle
import runpy
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from rollout.task_tools.preparation import prepare_all, write_data
from rollout.task_tools.preparation.sources import checksum
from tasks.grading import InvalidSubmission, grade
from tasks.registry import find, load, task_of
from tasks.task import Task

twins = runpy.run_path(str(Path(__file__).with_name("twins_images.py")))  # tests are no package
TWINS = twins["TWINS"]
pytestmark = pytest.mark.timeout(300)
CIFAR, CACTUS, DOGS, PLANT = TWINS
CLASSES = ["healthy", "multiple_diseases", "rust", "scab"]


def make_twin(name: str, folder: Path) -> Path:
    """Return the folder with the raw files of a task's twin."""
    raw = folder / name
    raw.mkdir(parents=True)
    TWINS[name](raw, np.random.default_rng(0))
    return raw


def write(name: str, raw: Path, out: Path) -> Task:
    """Return the task with data made from raw files; its initial script has not run."""
    out.mkdir(exist_ok=True)
    return task_of(find(name), write_data(find(name), raw, out))


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """Folder with the raw files of all four tasks."""
    folder = tmp_path_factory.mktemp("raw")
    for name in TWINS:
        make_twin(name, folder)
    return folder


@pytest.fixture(scope="module")
def tasks(raw, tmp_path_factory) -> dict[str, Task]:
    return {name: write(name, raw / name, tmp_path_factory.mktemp("data")) for name in TWINS}


def unpack(archive: Path) -> dict[str, bytes]:
    """Return the files in a zip archive."""
    with zipfile.ZipFile(archive) as file:
        return {name: file.read(name) for name in file.namelist() if not name.endswith("/")}


def gold(task: Task) -> pd.DataFrame:
    """Return the submission made from the answers."""
    answers = pd.read_csv(task.private / task.answers)
    if task.name != CIFAR:
        return answers
    one_hot = pd.DataFrame(np.eye(10)[answers["label"]], columns=list("0123456789"))
    return pd.concat([answers["id"], one_hot], axis=1)


def to_csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False).encode()


def test_cifar_keeps_its_own_split_and_the_order_of_its_images(tasks, tmp_path):
    rng = np.random.default_rng(1)
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    batches = {
        name: (rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, 4, dtype=np.uint8))
        for name in names
    }
    twins["write_cifar_archive"](tmp_path / "cifar-10-python.tar.gz", dict(reversed(batches.items())))
    task = write(CIFAR, tmp_path, tmp_path / "out")
    train, test = np.load(task.public / "train.npz"), np.load(task.public / "test.npz")
    np.testing.assert_array_equal(train["images"], np.concatenate([batches[name][0] for name in names[:5]]))
    np.testing.assert_array_equal(train["labels"], np.concatenate([batches[name][1] for name in names[:5]]))
    np.testing.assert_array_equal(test["images"], batches["test_batch"][0])
    assert test.files == ["images"]
    answers = pd.read_csv(task.private / "answers.csv")
    assert answers["id"].tolist() == [0, 1, 2, 3] and answers["label"].tolist() == batches["test_batch"][1].tolist()


def test_cactus_photos_are_split_as_mle_bench_splits_them(raw, tasks):
    labels, task = pd.read_csv(raw / CACTUS / "train.csv"), tasks[CACTUS]
    train, test = train_test_split(labels, test_size=0.19, random_state=0)
    assert (task.public / "train.csv").read_bytes() == to_csv(train)
    assert (task.private / "test.csv").read_bytes() == to_csv(test)
    assert (task.public / "sample_submission.csv").read_bytes() == to_csv(test.assign(has_cactus=0.5))
    photos = unpack(raw / CACTUS / "train.zip")
    for name, part in (("train.zip", train), ("test.zip", test)):
        assert unpack(task.public / name) == {id_: photos[f"train/{id_}"] for id_ in part["id"]}
    assert len(test) == 38 and len(list(task.public.iterdir())) == 4


def test_dogs_and_cats_are_split_and_numbered_as_mle_bench_does_it(raw, tasks):
    whole, task = unpack(next((raw / DOGS).glob("*.zip"))), tasks[DOGS]
    with zipfile.ZipFile(BytesIO(whole["train.zip"])) as archive:
        photos = {name: archive.read(name) for name in sorted(archive.namelist()) if name.endswith(".jpg")}
    train, test = train_test_split(list(photos), test_size=0.1, random_state=0)
    assert unpack(task.public / "test.zip") == {f"{id_}.jpg": photos[name] for id_, name in enumerate(test, 1)}
    answers = pd.DataFrame({"id": range(1, 13), "label": [int("dog" in name) for name in test]})
    assert (task.private / "answers.csv").read_bytes() == to_csv(answers)
    assert (task.public / "sample_submission.csv").read_bytes() == to_csv(answers.assign(label=0.5))
    renamed = unpack(task.public / "train.zip")
    for kind in ("cat", "dog"):
        its = [photos[name] for name in train if kind in name]
        assert [renamed.pop(f"{kind}.{number}.jpg") for number in range(len(its))] == its
    assert renamed == {} and len(list(task.public.iterdir())) == 3


@pytest.mark.slow
def test_the_real_names_of_dogs_and_cats_give_the_answers_whose_checksum_mle_bench_publishes(tmp_path):
    names = [f"train/{kind}.{number}.jpg" for kind in ("cat", "dog") for number in range(12500)]
    (tmp_path / "train.zip").write_bytes(twins["zipped"](dict.fromkeys(names, b"")))
    task = write(DOGS, tmp_path, tmp_path / "out")
    assert hashlib.md5((task.private / "answers.csv").read_bytes()).hexdigest() == "98f293fd3f37f967c17aa9263e866c30"
    sample = (task.public / "sample_submission.csv").read_bytes()
    assert hashlib.md5(sample).hexdigest() == "cfe8f41567220b6fcbbdc4eb4df7230f"


def test_leaves_are_split_and_numbered_as_mle_bench_does_it(raw, tasks):
    photos, task = unpack(next((raw / PLANT).glob("*.zip"))), tasks[PLANT]
    labels = pd.read_csv(BytesIO(photos["train.csv"]))
    for name, part in zip(("Train", "Test"), train_test_split(labels, test_size=0.1, random_state=0), strict=True):
        new = part.assign(image_id=[f"{name}_{number}" for number in range(len(part))])
        file = task.public / "train.csv" if name == "Train" else task.private / "test.csv"
        assert file.read_bytes() == to_csv(new)
        for old_id, new_id in zip(part["image_id"], new["image_id"], strict=True):
            assert (task.public / f"images/{new_id}.jpg").read_bytes() == photos[f"images/{old_id}.jpg"]
    assert (task.public / "test.csv").read_bytes() == to_csv(new[["image_id"]])
    assert (task.public / "sample_submission.csv").read_bytes() == to_csv(new.assign(**dict.fromkeys(CLASSES, 0.25)))
    assert len(new) == 16 and len(list((task.public / "images").iterdir())) == 160
    assert sorted(path.name for path in task.public.iterdir()) == [
        "images",
        "sample_submission.csv",
        "test.csv",
        "train.csv",
    ]


@pytest.mark.parametrize("name", TWINS)
def test_a_submission_made_of_the_answers_has_the_best_score(tasks, name):
    assert grade(tasks[name], to_csv(gold(tasks[name]))) == pytest.approx(0 if name == DOGS else 1, abs=1e-12)


@pytest.mark.parametrize(("name", "score"), [(CACTUS, 0.5), (DOGS, np.log(2)), (PLANT, 0.5)])
def test_mle_benchs_sample_submission_is_valid(tasks, name, score):
    assert grade(tasks[name], (tasks[name].public / "sample_submission.csv").read_bytes()) == pytest.approx(score)


def test_cifar_counts_the_likeliest_class_of_each_image_by_its_id(tasks):
    task, answers = tasks[CIFAR], gold(tasks[CIFAR])
    labels = pd.read_csv(task.private / "answers.csv")["label"]
    scores = np.random.default_rng(0).random((len(labels), 10))
    submission = pd.DataFrame(scores).assign(id=labels.index).sample(frac=1, random_state=0)
    assert grade(task, to_csv(submission)) == pytest.approx((scores.argmax(axis=1) == labels).mean())
    assert 0 < grade(task, to_csv(answers.assign(**{"0": 1.0}))) < 0.2  # ties go to the first


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda table: table.drop(columns="9"), "expected id and the classes 0 to 9"),
        (lambda table: table.iloc[1:], "1 of 300 test ids are missing"),
        (lambda table: table.assign(id=table["id"] + 1), "has the id '300', which is not in the test data"),
        (lambda table: table.assign(**{"3": np.nan}), "a prediction is missing or is not a number"),
        (lambda table: table.assign(**{"3": np.inf}), "a prediction is NaN or infinite"),
    ],
)
def test_a_cifar_submission_without_a_score_is_told_why(tasks, spoil, reason):
    with pytest.raises(InvalidSubmission, match=reason):
        grade(tasks[CIFAR], to_csv(spoil(gold(tasks[CIFAR]))))


@pytest.mark.parametrize("name", TWINS)
def test_the_same_raw_files_make_the_same_data_packed_or_not(raw, tasks, tmp_path, name):
    loose = tmp_path / name
    shutil.copytree(raw / name, loose)
    for archive in loose.glob("*.zip"):
        with zipfile.ZipFile(archive) as file:
            file.extractall(loose)
        archive.unlink()
    before = checksum(loose)
    task = write(name, loose, tmp_path / "out")
    assert checksum(task.public, task.private) == checksum(tasks[name].public, tasks[name].private)
    assert checksum(loose) == before, "the raw files are left as they are"
    assert {path.name for path in task.public.parent.iterdir()} == {"public", "private"}


def drop(name: str) -> Callable[[Path], None]:
    """Return a function that removes a raw file, or one in an archive."""

    def spoil(raw: Path) -> None:
        archive, _, member = name.partition(":")
        files = unpack(raw / archive) if member else {}
        (raw / archive).unlink()
        if member:
            files.pop(member)
            (raw / archive).write_bytes(twins["zipped"](files))

    return spoil


def cut(name: str) -> Callable[[Path], None]:
    """Return a function that truncates a raw file to its first half."""
    return lambda raw: (raw / name).write_bytes((raw / name).read_bytes()[: (raw / name).stat().st_size // 2])


def run_a_command(raw: Path) -> None:
    """Makes the archive one whose pickle runs a command when it is read as usual."""

    class Hostile:
        def __reduce__(self):
            return (shutil.rmtree, (str(raw),))

    content = pickle.dumps(Hostile(), protocol=2)
    with tarfile.open(raw / "cifar-10-python.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        member.size = len(content)
        archive.addfile(member, BytesIO(content))


def rename_a_column(raw: Path) -> None:
    pd.read_csv(raw / "train.csv").rename(columns={"has_cactus": "cactus"}).to_csv(raw / "train.csv", index=False)


def number_the_photos(raw: Path) -> None:
    (raw / f"{DOGS}.zip").unlink()
    (raw / "train.zip").write_bytes(twins["zipped"]({"train/1.jpg": b""}))


LAST_LEAF = f"{PLANT}.zip:images/Train_159.jpg"


@pytest.mark.parametrize(
    ("name", "spoil", "reason"),
    [
        (CIFAR, drop("cifar-10-python.tar.gz"), "task cifar-10: there is no .*cifar-10-python.tar.gz"),
        (CIFAR, cut("cifar-10-python.tar.gz"), "cifar-10-python.tar.gz cannot be read .*; download it again"),
        (CIFAR, run_a_command, "cifar-10-python.tar.gz cannot be read .it needs shutil.rmtree.; download it again"),
        (
            CACTUS,
            drop("train.csv"),
            "task aerial-cactus-identification: there is no train.csv in .*, nor in an archive there; put the comp",
        ),
        (CACTUS, drop("train.zip"), "there is no train in .*, nor in an archive there; put the competition"),
        (CACTUS, cut("train.zip"), "train.zip cannot be read .BadZipFile: .*; download it again"),
        (CACTUS, rename_a_column, "train.csv has no column has_cactus, only id, cactus; expected id, has_cactus"),
        (DOGS, drop(f"{DOGS}.zip:train.zip"), "there is no train in .*, nor in an archive there; put the competition"),
        (DOGS, number_the_photos, "train has 1 images of 1; expected cat.NUMBER.jpg and"),
        (PLANT, drop(LAST_LEAF), "1 of 160 files are missing from .*images: Train_159.jpg; download it again"),
        (
            PLANT,
            drop(f"{PLANT}.zip:train.csv"),
            "there is no train.csv in .*, nor in an archive there; put the competition",
        ),
    ],
)
def test_wrong_raw_files_are_one_line_and_leave_nothing(raw, tmp_path, name, spoil, reason):
    shutil.copytree(raw / name, tmp_path / "raw" / name)
    spoil(tmp_path / "raw" / name)
    with pytest.raises(ValueError, match=reason) as caught:
        write(name, tmp_path / "raw" / name, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", TWINS)
def test_the_initial_script_learns_and_does_so_on_mle_benchs_folders_too(raw, tmp_path, name):
    entry = replace(find(name), noise=0.0)  # known, so that the script runs once
    prepare_all([entry], tmp_path / "out", Path(sys.executable), raw)
    task = load(name, tmp_path / "out")
    chance = {CIFAR: 0.1, CACTUS: 0.5, DOGS: np.log(2), PLANT: 0.5}[name]
    assert task.is_better(task.m_init, chance) and task.is_better(task.validation_init, chance)
    assert task.m_init == load_from_mle_bench(task, tmp_path).m_init


def load_from_mle_bench(task: Task, folder: Path) -> Task:
    """Return the task prepared from a folder with MLE-bench's layout."""
    prepared = folder / "mle-bench" / task.name / "prepared"
    shutil.copytree(task.public, prepared / "public")
    shutil.copytree(task.private, prepared / "private")
    (prepared / "public/description.md").write_text("What Kaggle says.\n")
    for archive in prepared.rglob("*.zip"):
        archive.write_bytes(twins["zipped"](unpack(archive)))  # it compresses
    prepare_all([replace(find(task.name), noise=0.0)], folder / "again", Path(sys.executable), folder / "mle-bench")
    return load(task.name, folder / "again")
