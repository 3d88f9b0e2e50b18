"""The paper's six text tasks, prepared from twins of what Kaggle delivers."""

import csv
import importlib.util
import io
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from rollout.executor.interpreter import TASK_PYTHON
from rollout.scripted.recipes import Script
from rollout.task_tools.preparation import prepare_all, write_data
from tasks.grading import InvalidSubmission, grade
from tasks.registry import find, load, task_of
from tasks.task import Task

pytestmark = pytest.mark.timeout(300)

# What MLE-bench (for feedback MLAgentBench) writes: the public files, the file of answers, its columns.
CSV = ["sample_submission.csv", "test.csv", "train.csv"]
LABELS = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]
RATINGS = ["cohesion", "syntax", "vocabulary", "phraseology", "grammar", "conventions"]
LAYOUT = {
    "feedback-prize-english-language-learning": (CSV, "answers.csv", ["text_id", *RATINGS]),
    "learning-agency-lab-automated-essay-scoring-2": (CSV, "answers.csv", ["essay_id", "full_text", "score"]),
    "detecting-insults-in-social-commentary": (
        ["sample_submission_null.csv", "test.csv", "train.csv"],
        "test.csv",
        ["Insult", "Date", "Comment", "Usage"],
    ),
    "spooky-author-identification": (CSV, "test.csv", ["id", "EAP", "HPL", "MWS"]),
    "jigsaw-toxic-comment-classification-challenge": (CSV, "test.csv", ["id", *LABELS]),
    "us-patent-phrase-to-phrase-matching": (CSV, "test.csv", ["id", "anchor", "target", "context", "score"]),
}
INSULTS, JIGSAW = "detecting-insults-in-social-commentary", "jigsaw-toxic-comment-classification-challenge"
BEST = {"mcrmse": 0.0, "qwk": 1.0, "accuracy": 1.0, "log_loss": 0.0, "auc": 1.0, "pearson": 1.0}


def module_beside(name: str):
    """Return the module of the twins, which is next to this file and in no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TWINS = module_beside("twins_texts").TWINS


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """Folder with the raw files of all six twins."""
    folder = tmp_path_factory.mktemp("raw")
    for name, write in TWINS.items():
        (folder / name).mkdir()
        write(folder / name, np.random.default_rng(0))
    return folder


@pytest.fixture(scope="module")
def data(raw, tmp_path_factory) -> Path:
    """Folder with the data of all six tasks, their initial scripts not yet run."""
    out = tmp_path_factory.mktemp("data")
    for name in TWINS:
        write_data(find(name), raw / name, out).rename(out / name)
    return out


@pytest.fixture(params=TWINS)
def task(request, data) -> Task:
    return task_of(find(request.param), data / request.param)


def table(file: Path) -> pd.DataFrame:
    return pd.read_csv(file, dtype=str, keep_default_na=False)


def gold(task: Task) -> pd.DataFrame:
    """The submission that says what the answers say, and a half where they say nothing."""
    answers = table(task.private / task.answers)
    form = next(file for file in task.public.iterdir() if file.name.startswith("sample_submission"))
    return answers[list(table(form).columns)].replace("-1", "0.5")


def packed(submission: pd.DataFrame) -> bytes:
    return submission.to_csv(index=False).encode()


def test_the_files_and_columns_are_those_of_mle_bench(task):
    public, answers, columns = LAYOUT[task.name]
    assert sorted(file.name for file in task.public.iterdir()) == public
    assert [file.name for file in task.private.iterdir()] == [answers] == [task.answers]
    assert list(table(task.private / answers).columns) == columns


@pytest.mark.parametrize("name", [name for name in TWINS if name not in (INSULTS, JIGSAW)])
def test_rows_are_split_as_mle_bench_and_mlagentbench_do(raw, data, name):
    # what scikit-learn's train_test_split and pandas' sample do with a seed, by NumPy alone
    seed, share = (42, 0.02) if name.startswith("feedback") else (0, 0.1)
    with zipfile.ZipFile(raw / name / "train.zip") if name.startswith("spooky") else io.BytesIO() as archive:
        old = table(archive.open("train.csv") if name.startswith("spooky") else raw / name / "train.csv")
    order = np.random.RandomState(seed).permutation(len(old))
    num_test = int(np.ceil(share * len(old)))
    test, train = order[:num_test], order[num_test:]
    if name.startswith("feedback"):  # it takes the last ones
        train, test = order[:-num_test], order[-num_test:]
    assert table(data / name / "public/train.csv").equals(old.iloc[train].reset_index(drop=True))
    there = table(data / name / "public/test.csv")
    assert there.equals(old.iloc[test][there.columns].reset_index(drop=True))


@pytest.mark.parametrize("name", [INSULTS, JIGSAW])
def test_kaggles_own_test_set_is_the_test_set(data, name):
    num_train, num_test = {INSULTS: (200, 120), JIGSAW: (300, 200)}[name]
    assert len(table(data / name / "public/train.csv")) == num_train
    test, answers = table(data / name / "public/test.csv"), table(data / name / "private/test.csv")
    shared = test.columns.intersection(answers.columns)
    assert len(test) == num_test and len(shared) > 0 and test[shared].equals(answers[shared])


def test_no_answer_is_public(task):
    test, train = table(task.public / "test.csv"), table(task.public / "train.csv")
    sample = table(next(task.public.glob("sample_submission*.csv")))
    targets = train.columns.difference(test.columns)
    assert len(targets) > 0
    assert not set(train.iloc[:, 0]) & set(test.iloc[:, 0]) or task.name == INSULTS  # which has no ids
    assert len(sample) == len(test)
    if task.metric != "qwk":  # whose sample is drawn at random
        assert all(sample[column].nunique() == 1 for column in sample.columns.difference(test.columns))
    else:
        assert (sample["score"] != table(task.private / task.answers)["score"]).mean() > 0.5


def test_the_initial_script_learns_and_is_graded_by_the_metric(task, measured):
    task = measured(task)
    chance = {"mcrmse": 1.2, "qwk": 0.0, "accuracy": 0.7, "log_loss": np.log(3), "auc": 0.5, "pearson": 0.0}
    assert task.is_better(task.m_init, chance[task.metric])
    assert task.is_better(BEST[task.metric], task.m_init)
    assert task.validation_init == pytest.approx(task.m_init, abs=0.35)


@pytest.mark.slow
def test_the_command_prepares_all_six_with_the_scores_of_their_scripts(raw, data, tmp_path):
    command = [sys.executable, "-m", "tasks", "prepare", *TWINS, "--raw", raw, "--out", tmp_path]
    done = subprocess.run([*command, "--python", TASK_PYTHON], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for name in TWINS:
        task = load(name, tmp_path)
        assert table(task.public / "train.csv").equals(table(data / name / "public/train.csv"))
        assert task.validation_init == pytest.approx(task.m_init, abs=0.35)


def test_the_script_keeps_to_the_conventions_that_coders_rely_on(task):
    assert len(Script(task.script).steps) == 2 and Script(task.script).is_text
    assert Script(task.script).is_classifier == (task.kind == "text-classification")
    assert f"validation {task.metric}: " in task.script
    better = "higher" if task.direction == "maximize" else "lower"
    assert f"Metric: {task.metric}, {better} is better." in task.problem and len(task.problem.split()) <= 120


def test_a_submission_made_of_the_answers_has_the_best_score(task):
    assert grade(task, packed(gold(task))) == pytest.approx(BEST[task.metric], abs=1e-9)
    assert grade(task, packed(gold(task).sample(frac=1, random_state=0))) == pytest.approx(
        BEST[task.metric],
        abs=1e-9 if task.name != INSULTS else 2 / 120 + 1e-9,  # its two equal rows may change places
    )


def test_a_submission_with_a_row_missing_twice_or_of_another_id_is_invalid(task):
    rows = gold(task)
    stranger = rows.assign(**{task.submission.id: ["stranger", *rows[task.submission.id][1:]]})
    for wrong in (rows[1:], pd.concat([rows, rows[1:2]]), stranger, rows[rows.columns[:-1]], rows.iloc[:0]):
        with pytest.raises(InvalidSubmission) as reason:
            grade(task, packed(wrong))
        assert "\n" not in str(reason.value) and len(str(reason.value)) < 200


def test_insults_are_labels_and_equal_comments_are_told_apart_by_their_order(data):
    task = task_of(find(INSULTS), data / INSULTS)
    rows = gold(task)
    twice = rows.duplicated(["Date", "Comment"], keep=False)
    assert twice.sum() == 2 and rows[twice]["Insult"].nunique() == 2
    assert grade(task, packed(rows.assign(Insult=0))) == pytest.approx((rows["Insult"] == "0").mean())
    with pytest.raises(InvalidSubmission, match="a prediction is neither 0 nor 1"):
        grade(task, packed(rows.assign(Insult=0.5)))


def test_rows_of_jigsaw_without_answers_do_not_count(data):
    task = task_of(find(JIGSAW), data / JIGSAW)
    answers = pd.read_csv(task.private / task.answers)
    counts = (answers[LABELS] >= 0).all(axis=1)
    assert counts.sum() == 100
    scores = np.random.default_rng(0).random((len(answers), 6)).round(1)  # with ties
    expected = roc_auc_score(answers[LABELS][counts], scores[counts])
    assert grade(task, packed(answers.assign(**dict(zip(LABELS, scores.T, strict=True))))) == pytest.approx(expected)


def test_what_mle_bench_has_prepared_loads_as_it_is(data, tmp_path, measured):
    prepared = tmp_path / "raw" / INSULTS / "prepared"
    for part in ("public", "private"):
        shutil.copytree(data / INSULTS / part, prepared / part)
    private = prepared / "private"
    shutil.copy(private / "test.csv", private / "gold_submission.csv")  # which MLE-bench has there too
    prepare_all([find(INSULTS)], tmp_path / "out", TASK_PYTHON, tmp_path / "raw", lambda _: None)
    assert load(INSULTS, tmp_path / "out").m_init == measured(task_of(find(INSULTS), data / INSULTS)).m_init


def without(column: str, file: Path) -> None:
    table(file).drop(columns=column).to_csv(file, index=False)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-60])


def other_ids(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        lines = list(csv.reader(io.TextIOWrapper(archive.open(file.stem))))
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(file.stem, "\n".join(",".join(line) for line in [lines[0], ["x", *lines[1][1:]], *lines[2:]]))


WRONG = [
    (
        "feedback-prize-english-language-learning",
        lambda raw: without("grammar", raw / "train.csv"),
        "has no column grammar",
    ),
    (
        "learning-agency-lab-automated-essay-scoring-2",
        lambda raw: (raw / "train.csv").unlink(),
        "there is no train.csv in",
    ),
    (INSULTS, lambda raw: (raw / "test_with_solutions.csv").unlink(), "there is no test_with_solutions.csv in"),
    ("spooky-author-identification", lambda raw: cut(raw / "train.zip"), "train.zip cannot be read"),
    (JIGSAW, lambda raw: other_ids(raw / "test_labels.csv.zip"), "have different ids"),
    (
        "us-patent-phrase-to-phrase-matching",
        lambda raw: (raw / "train.csv").write_bytes(b"\xff\xfe,a\n1,2\n"),
        "is not the expected CSV file",
    ),
]


@pytest.mark.parametrize(("name", "spoil", "reason"), WRONG)
def test_wrong_raw_files_are_one_line_and_leave_nothing(raw, tmp_path, name, spoil, reason):
    shutil.copytree(raw / name, tmp_path / "raw" / name)
    spoil(tmp_path / "raw" / name)
    with pytest.raises(ValueError, match=reason) as raised:
        prepare_all([find(name)], tmp_path / "out", TASK_PYTHON, tmp_path / "raw", lambda _: None)
    assert "\n" not in str(raised.value)
    assert list((tmp_path / "out").iterdir()) == []
