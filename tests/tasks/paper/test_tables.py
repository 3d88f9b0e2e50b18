"""The paper's tabular tasks, prepared from tiny twins of their raw files."""

import io
import re
import runpy
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from rollout.executor.interpreter import TASK_PYTHON
from rollout.task_tools.preparation import prepare_all, write_data
from tasks import __main__ as door
from tasks.grading import InvalidSubmission, grade
from tasks.metric import METRICS
from tasks.registry import find, load, task_of
from tasks.task import Task

twins = runpy.run_path(str(Path(__file__).with_name("twins_tables.py")))  # tests are no package
TWINS, pack = twins["TWINS"], twins["pack"]
pytestmark = pytest.mark.timeout(300)
HOUSE, SHIP, NOMAD, COVER = TWINS
TARGETS = {
    HOUSE: ["SalePrice"],
    SHIP: ["Transported"],
    NOMAD: ["formation_energy_ev_natom", "bandgap_energy_ev"],
    COVER: ["Cover_Type"],
}
MLE_BENCH = [SHIP, NOMAD, COVER]


def make_twin(name: str, folder: Path) -> Path:
    """Return the folder with the raw files of a task's twin."""
    raw = folder / name
    raw.mkdir(parents=True)
    TWINS[name](raw, np.random.default_rng(0))
    return raw


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """Folder with the raw files of all four tasks."""
    folder = tmp_path_factory.mktemp("raw")
    for name in TWINS:
        make_twin(name, folder)
    return folder


@pytest.fixture(scope="module")
def data(raw, tmp_path_factory) -> Path:
    """Folder with the data of all four tasks, their initial scripts not yet run."""
    out = tmp_path_factory.mktemp("data")
    for name in TWINS:
        write_data(find(name), raw / name, out).rename(out / name)
    return out


@pytest.fixture(params=TWINS)
def task(request, data) -> Task:
    return task_of(find(request.param), data / request.param)


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the content of every file in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def gold(task: Task) -> pd.DataFrame:
    """Return a submission without errors."""
    answers = pd.read_csv(task.private / task.answers)
    return answers[[task.submission.id, *TARGETS[task.name]]]


def csv_of(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False).encode()


def test_the_split_is_mle_benchs(raw, data):
    table = pd.read_csv(raw / NOMAD / "train.csv.zip")
    for name in MLE_BENCH:
        old = table if name == NOMAD else pd.read_csv(raw / name / "train.csv")
        train, test = (part.copy() for part in train_test_split(old, test_size=0.1, random_state=0))
        if name == NOMAD:
            train["id"], test["id"] = np.arange(len(train)) + 1, np.arange(len(test)) + 1
        public, private = data / name / "public", data / name / "private"
        expected = {public / "train.csv": train, private / "test.csv": test}
        expected[public / "test.csv"] = test.drop(columns=TARGETS[name])
        for file, rows in expected.items():
            pd.testing.assert_frame_equal(pd.read_csv(file), pd.read_csv(io.BytesIO(csv_of(rows))))
        sample = pd.read_csv(public / "sample_submission.csv")
        assert list(sample.iloc[:, 0]) == list(test.iloc[:, 0]) and list(sample)[1:] == TARGETS[name]
        assert sample.iloc[:, 1:].nunique().eq(1).all()


def test_the_last_fifth_of_the_houses_is_the_test_set(raw, data):
    rows = (raw / HOUSE / "train.csv").read_text().splitlines()
    assert (data / HOUSE / "public/train.csv").read_text().splitlines() == rows[:161]
    assert pd.read_csv(data / HOUSE / "public/test.csv")["Id"].tolist() == list(range(161, 201))
    assert "OverallQual" in (data / HOUSE / "public/data_description.txt").read_text()


def test_every_material_keeps_its_geometry(raw, data):
    old = pd.read_csv(raw / NOMAD / "train.csv.zip").set_index("lattice_vector_1_ang")["id"]
    for name in ("train", "test"):
        new = pd.read_csv(data / NOMAD / f"public/{name}.csv")
        for row in new.itertuples():
            text = (data / NOMAD / f"public/{name}/{row.id}/geometry.xyz").read_text()
            assert text.startswith(f"#train {old[row.lattice_vector_1_ang]}\n")
        assert len(list((data / NOMAD / "public" / name).iterdir())) == len(new) == {"train": 108, "test": 12}[name]


def test_no_answer_is_public(task):
    assert not set(TARGETS[task.name]) & set(pd.read_csv(task.public / "test.csv"))
    train = pd.read_csv(task.public / "train.csv").drop(columns=TARGETS[task.name])
    test = pd.read_csv(task.public / "test.csv")
    if task.name == NOMAD:  # ids start at 1 in both
        train, test = train.drop(columns="id"), test.drop(columns="id")
    assert not pd.concat([train, test]).duplicated().any()


def test_the_initial_script_scores_between_a_guess_and_the_best(task, measured):
    task = measured(task)
    guess = gold(task)
    column = TARGETS[task.name][-1]
    for name in TARGETS[task.name]:
        guess[name] = guess[name].mode()[0] if task.metric == "accuracy" else guess[name].mean()
    assert guess[column].nunique() == 1
    assert task.is_better(task.m_init, grade(task, csv_of(guess)))
    assert abs(task.validation_init - task.m_init) < 0.5 * task.m_init


@pytest.mark.slow
def test_all_four_are_prepared_with_the_scores_of_their_scripts(raw, data, tmp_path):
    # the noise is stated, which spares twelve runs of scripts
    prepare_all([replace(find(name), noise=0.0) for name in TWINS], tmp_path, TASK_PYTHON, raw)
    for name in TWINS:
        task = load(name, tmp_path)
        assert files_of(task.public) == files_of(data / name / "public")
        assert abs(task.validation_init - task.m_init) < 0.5 * task.m_init


def test_right_answers_get_the_best_score_in_any_order(task):
    best = 1.0 if task.direction == "maximize" else 0.0
    assert grade(task, csv_of(gold(task))) == best
    assert grade(task, csv_of(gold(task).iloc[::-1])) == best
    with pytest.raises(InvalidSubmission, match="1 of .* test ids are missing"):
        grade(task, csv_of(gold(task)[1:]))


def test_the_metric_is_kaggles(data):
    materials = task_of(find(NOMAD), data / NOMAD)
    energies = gold(materials)[TARGETS[NOMAD]].to_numpy()
    other = gold(materials).assign(bandgap_energy_ev=energies[:, 1] + 1, formation_energy_ev_natom=0.0)
    away = np.log1p(other[TARGETS[NOMAD]].to_numpy()) - np.log1p(energies)
    assert grade(materials, csv_of(other)) == pytest.approx(np.sqrt((away**2).mean(axis=0)).mean())

    houses = task_of(find(HOUSE), data / HOUSE)
    prices = gold(houses)["SalePrice"].to_numpy()
    halved = gold(houses).assign(SalePrice=prices / 2)
    assert grade(houses, csv_of(halved)) == pytest.approx(np.abs(prices / 2).mean())

    ship = task_of(find(SHIP), data / SHIP)
    false = gold(ship).assign(Transported=False)
    assert grade(ship, csv_of(false)) == pytest.approx((~gold(ship)["Transported"]).mean())


def test_the_texts_say_what_is_graded(task):
    better = "higher" if task.direction == "maximize" else "lower"
    assert f"Metric: {task.metric}, {better} is better." in task.problem
    assert "{script}" in task.problem and len(task.problem.split()) <= 120
    assert all(name in task.problem for name in (task.submission.id, *task.submission.columns))
    assert list(task.submission.columns) == TARGETS[task.name]
    assert METRICS[task.metric].direction == task.direction
    entry = find(task.name)
    assert entry.medals is not None and task.is_better(entry.medals.gold, entry.medals.median)
    if entry.paper is not None and entry.paper.m_init is not None:
        assert task.is_better(entry.m_best, entry.paper.m_init)


@pytest.mark.parametrize("name", TWINS)
def test_one_archive_of_the_whole_competition_will_do(name, data, tmp_path):
    packed = make_twin(name, tmp_path / "raw")
    pack(packed)
    aside = write_data(find(name), packed, tmp_path)
    for part in ("public", "private"):
        assert files_of(aside / part) == files_of(data / name / part)


@pytest.mark.parametrize("name", MLE_BENCH)
def test_what_mle_bench_has_prepared_loads_as_it_is(name, data, tmp_path):
    there = tmp_path / name / "prepared"
    for part in ("public", "private"):
        shutil.copytree(data / name / part, there / part)
    task = task_of(find(name), write_data(find(name), there.parent, tmp_path))
    assert files_of(task.public) == files_of(there / "public")
    assert grade(task, csv_of(gold(task))) == (1.0 if task.direction == "maximize" else 0.0)


def rename_target(raw: Path) -> None:
    table = pd.read_csv(raw / "train.csv", dtype=str, keep_default_na=False)
    table.rename(columns={table.columns[-1]: "label"}).to_csv(raw / "train.csv", index=False)


def truncate(raw: Path) -> None:
    file = raw / ("train.csv" if (raw / "train.csv").is_file() else "train.zip")
    file.write_bytes(file.read_bytes()[: -file.stat().st_size // 3])


def cut_in_a_row(raw: Path) -> None:
    rows = (raw / "train.csv").read_text().splitlines()
    (raw / "train.csv").write_text("\n".join([*rows[:-1], rows[-1].split(",")[0]]))


def take_away(raw: Path) -> None:
    next(raw.glob("train.csv*")).unlink()


def not_numbers(raw: Path) -> None:
    text = (raw / "train.csv").read_text()
    (raw / "train.csv").write_text(text.replace("\n1,", "\n1,many", 1))


def another_train_zip(raw: Path) -> None:
    shutil.copy(raw / "test.zip", raw / "train.zip")


def fewer_geometries(raw: Path) -> None:
    (raw / "train.zip").unlink()
    (raw / "train/1").mkdir(parents=True)
    (raw / "train/1/geometry.xyz").write_text("")


@pytest.mark.parametrize(
    ("name", "spoil", "reason"),
    [
        *(
            (
                name,
                take_away,
                f"task {name}: there is no train.csv in .*{name}, nor in an archive there; put the competition",
            )
            for name in TWINS
        ),
        (HOUSE, rename_target, "train.csv has no column SalePrice, only Id, .*; expected Id, OverallQual"),
        (SHIP, rename_target, "train.csv has no column Transported, only PassengerId, .*; expected PassengerId, Cabin"),
        (COVER, rename_target, "train.csv has no column Cover_Type, only Id, Elevation, .*; expected Id"),
        (SHIP, cut_in_a_row, "train.csv has 1 incomplete rows, without Transported; download it again"),
        (HOUSE, cut_in_a_row, "train.csv has 1 incomplete rows, without SalePrice; download it again"),
        (COVER, cut_in_a_row, "train.csv is not the expected CSV file: .*; download it again"),
        (COVER, not_numbers, "train.csv is not the expected CSV file: .*many.*; download it again"),
        (NOMAD, truncate, "train.zip cannot be read .BadZipFile: .*; download it again"),
        (NOMAD, another_train_zip, "there is no train in .*, nor in an archive there; put the competition"),
        (NOMAD, fewer_geometries, "119 of 120 files are missing from .*train: 2/geometry.xyz, .*; download it again"),
    ],
)
def test_wrong_raw_files_are_told_in_one_line(name, spoil, reason, tmp_path, capsys):
    spoil(make_twin(name, tmp_path / "raw"))
    out = tmp_path / "data"
    assert door.main(["prepare", name, "--raw", str(tmp_path / "raw"), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and re.search(reason, said), said
    assert list(out.iterdir()) == []


def test_house_prices_come_from_the_package_where_there_are_no_raw_files(tmp_path):
    aside = write_data(find(HOUSE), tmp_path / "nothing", tmp_path)
    train, test = (pd.read_csv(aside / "public" / name) for name in ("train.csv", "test.csv"))
    assert (train.shape, test.shape) == ((1168, 81), (292, 80))
    assert test["Id"].tolist() == list(range(1169, 1461))
    answers = pd.read_csv(aside / "private/answers.csv")
    assert answers.shape == (292, 2) and answers["SalePrice"].between(30_000, 800_000).all()
