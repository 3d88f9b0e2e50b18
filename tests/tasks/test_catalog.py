"""Every task of the catalog, prepared for real once: its texts, its script's conventions, its data."""

import ast
import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.tasks_table import BY_SEARCH, DOCUMENT, STANDS_IN, data_table
from tasks.metric import METRICS
from tasks.naming import Names
from tasks.registry import find, load, names
from tasks.task import Instance, Task

pytestmark = pytest.mark.timeout(600)
PAPERS = (
    "aerial-cactus-identification cifar-10 denoising-dirty-documents detecting-insults-in-social-commentary "
    "dogs-vs-cats-redux-kernels-edition feedback-prize-english-language-learning home-data-for-ml-course "
    "jigsaw-toxic-comment-classification-challenge leaf-classification learning-agency-lab-automated-essay-scoring-2 "
    "nomad2018-predict-transparent-conductors ogbn-arxiv plant-pathology-2020-fgvc7 spaceship-titanic "
    "spooky-author-identification statoil-iceberg-classifier-challenge tabular-playground-series-dec-2021 "
    "us-patent-phrase-to-phrase-matching whale-categorization-playground"
).split()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Folder with all tasks of the catalog, prepared by the command that a user types."""
    out = tmp_path_factory.mktemp("data")
    done = subprocess.run([sys.executable, "-m", "tasks", "prepare", "--out", out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return out


@pytest.fixture(params=names())
def task(request, data) -> Task:
    return load(request.param, data)


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def test_the_catalog_has_the_breadth_it_promises():
    for split in ("held_in", "held_out"):
        found = [find(name) for name in names(split)]
        assert {known.direction for known in found} == {"maximize", "minimize"}
        assert len({known.kind for known in found}) >= 3
    assert len({find(name).metric for name in names()}) >= 5


def test_the_problem_is_short_and_says_what_is_wanted(task):
    text = Instance(task, Names("", "a.csv", "b.csv", "c.py")).problem()
    assert all(name in text for name in ("a.csv", "b.csv", "c.py"))
    better = "higher" if task.direction == "maximize" else "lower"
    assert f"Metric: {task.metric}, {better} is better." in text
    assert len(text.split()) <= 45


def test_the_script_keeps_to_the_conventions_that_coders_rely_on(task):
    source = task.script
    assert source.count('"train.csv"') == source.count('"test.csv"') == 1
    assert 20 <= len(source.splitlines()) <= 35
    assert re.findall(r"validation (\w+): ", source) == [task.metric]
    assigned = [
        node.targets[0].id
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    ]
    assert [assigned.count(name) for name in ("y", "X", "X_test", "model", "score")] == [1] * 5
    pipeline = next(
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "model"
    )
    assert isinstance(pipeline, ast.Call) and ast.unparse(pipeline.func) == "make_pipeline"
    assert all(isinstance(step, ast.Call) and not step.args for step in pipeline.args)


def test_the_initial_score_is_measured_and_leaves_room(task):
    assert task.is_better(task.m_best, task.m_init)
    assert task.gain(task.m_best) == pytest.approx(1.0)
    # What the script prints is of the size of the hidden score: the agent's own yardstick can be trusted.
    assert abs(task.gain(task.validation_init)) < 0.75


def test_answers_are_for_exactly_the_test_rows_and_nowhere_public(task):
    train, test = rows_of(task.public / "train.csv"), rows_of(task.public / "test.csv")
    answers = rows_of(task.private / "answers.csv")
    assert "target" not in test[0] and set(train[0]) == {*test[0], "target"}
    assert [row["id"] for row in answers] == [row["id"] for row in test]
    assert len({row["id"] for row in train + test}) == len(train) + len(test)
    assert sorted(path.name for path in task.public.iterdir()) == ["test.csv", "train.csv"]
    assert 800 <= len(train) <= 1500 and len(test) >= 600


def test_no_test_row_stands_in_the_training_data_with_its_answer(task):
    def key(row: dict[str, str]) -> tuple[str, ...]:
        return tuple(value for name, value in row.items() if name != "id")

    answers = {row["id"]: row["target"] for row in rows_of(task.private / "answers.csv")}
    test = rows_of(task.public / "test.csv")
    seen = {key(row) for row in rows_of(task.public / "train.csv")}
    assert not seen & {key({**row, "target": answers[row["id"]]}) for row in test}


def test_cells_hold_no_line_breaks_or_control_characters(task):
    for file in ("train.csv", "test.csv"):
        text = (task.public / file).read_text(encoding="utf-8")
        assert len(text.splitlines()) == len(rows_of(task.public / file)) + 1
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)


@pytest.mark.parametrize("name", [name for name in names() if METRICS[find(name).metric].form != "number"])
def test_classes_are_the_same_in_training_data_and_answers(data, name):
    task = load(name, data)
    known = {row["target"] for row in rows_of(task.public / "train.csv")}
    assert known == {row["target"] for row in rows_of(task.private / "answers.csv")}


@pytest.mark.parametrize("name", names())
def test_what_a_task_stands_in_for_is_one_of_the_papers(name):
    _, stands_in, what = find(name).data.partition(STANDS_IN)
    assert what in PAPERS if stands_in else name in ("diamond_price", "hotel_rate")


def test_the_document_has_the_tasks_as_they_are_stated():
    document = DOCUMENT.read_text(encoding="utf-8")
    entries = [find(name) for name in (*names("held_in"), *names("held_out"))]
    assert data_table(entries) in document
    rows = [line.split(" | ") for line in document.splitlines() if line.startswith("| `")]
    scores = [row[4:6] for row in rows][len(entries) : 2 * len(entries)]
    assert scores == [[f"{entry.m_best:.4f}", entry.m_best_source.split(BY_SEARCH)[-1]] for entry in entries]
