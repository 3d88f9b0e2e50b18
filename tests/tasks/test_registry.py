"""Tasks in their folders, and what `load` and `prepare` say of those that are not as they should be."""

import json
import re
import shutil
import statistics
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from rollout.task_tools.preparation import sources
from rollout.task_tools.preparation.initial_score import SEEDS, with_seed
from tasks import __main__ as door
from tasks import registry
from tasks.grading import InvalidSubmission, grade
from tasks.naming import Names
from tasks.task import Instance, Task

# The toy task's scripts need no packages, so any interpreter runs them at once.
TASK_YAML = """\
name: toy
kind: tabular-regression
split: held_in
metric: mae
direction: minimize
m_best: 0.0
m_best_source: by construction
packages: [numpy]
data: made up
"""
PREPARE = """\
def prepare(raw, public, private):
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
def toy(tmp_path):
    """A task in a folder of its own outside the package."""
    folder = tmp_path / "own" / "toy"
    folder.mkdir(parents=True)
    (folder / "task.yaml").write_text(TASK_YAML)
    (folder / "problem.md").write_text("Guess.\n")
    (folder / "prepare.py").write_text(PREPARE)
    (folder / "train.py").write_text(TRAIN)
    return folder


def prepare(toy: Path, out: Path, *arguments: str) -> int:
    return door.main(
        ["prepare", "toy", "--path", str(toy.parent), *arguments, "--out", str(out), "--python", sys.executable]
    )


def load(toy: Path, out: Path) -> Task:
    return registry.load("toy", out, [toy.parent])


def test_splits_part_the_catalog():
    train, held_out = registry.names("held_in"), registry.names("held_out")
    assert len(train) == 10 and len(held_out) == 6
    assert sorted(train + held_out) == sorted(registry.names())


def test_an_unknown_task_is_told_the_nearest():
    with pytest.raises(ValueError, match=r"unknown task 'house_prise' \(nearest: house_price\); there are"):
        registry.load("house_prise", Path("."))


def test_a_task_that_is_not_prepared_says_how_to_prepare_it(tmp_path):
    with pytest.raises(ValueError, match=f"python -m tasks prepare house_price --out {tmp_path}"):
        registry.load("house_price", tmp_path)


def test_the_command_that_prepares_an_own_task_in_a_folder_of_any_name_can_be_copied(toy, tmp_path):
    data = tmp_path / "my 'data' $HOME\nx"
    with pytest.raises(ValueError) as raised:
        load(toy, data)
    command = str(raised.value).partition("; run ")[2]
    assert "\n" not in command
    script = f"set -- {command}; shift; printf '%s\\0' \"$@\""
    words = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.split("\0")
    assert words[:-1] == ["-m", "tasks", "prepare", "toy", "--out", str(data), "--path", str(toy)]


def test_a_prepared_task_loads_with_its_measured_scores(toy, tmp_path):
    assert prepare(toy, tmp_path / "data") == 0
    task = load(toy, tmp_path / "data")
    assert (task.m_init, task.validation_init, task.m_best) == (0.5, 0.25, 0.0)
    assert task.script == TRAIN and task.problem == "Guess.\n"
    stated = json.loads((tmp_path / "data/toy/task.json").read_text())
    assert list(stated["sources"]) == ["numpy"]


def test_preparing_again_does_nothing_until_the_catalog_changes(toy, tmp_path, capsys):
    out = tmp_path / "data"
    prepare(toy, out)
    before = (out / "toy/task.json").stat().st_mtime_ns
    prepare(toy, out)
    assert "prepared already" in capsys.readouterr().out
    assert (out / "toy/task.json").stat().st_mtime_ns == before

    (toy / "train.py").write_text(TRAIN.replace(",2\\n", ",3\\n").replace("0.2500", "0.5000"))
    with pytest.raises(ValueError, match="another version of"):
        load(toy, out)
    prepare(toy, out)
    assert load(toy, out).validation_init == 0.5


def test_a_damaged_record_is_said_and_mended(toy, tmp_path):
    out = tmp_path / "data"
    prepare(toy, out)
    (out / "toy/task.json").write_text('{"m_init": ')
    with pytest.raises(ValueError, match="is damaged"):
        load(toy, out)
    assert prepare(toy, out) == 0
    assert load(toy, out).m_init == 0.5


def test_what_an_interrupted_run_left_is_no_obstacle(toy, tmp_path):
    left = tmp_path / "data" / ".toy.partial" / "public"
    left.mkdir(parents=True)
    assert prepare(toy, tmp_path / "data") == 0
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["toy"]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("raise SystemExit('no luck')", "train.py ended with status 1: no luck"),
        (
            "raise MemoryError('Unable to allocate 6.0 GiB for an array with shape (20000, 40000)')",
            "train.py ran out of memory on test.csv (0.0 MB), train.csv (0.0 MB) (MemoryError: Unable to allocate 6.0 "
            "GiB for an array with shape (20000, 40000)); let it use fewer rows or columns, such as the frequent "
            "values of a column of words only",
        ),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            "train.py ran out of memory on test.csv (0.0 MB), train.csv (0.0 MB) (no output); let it use fewer rows or "
            "columns, such as the frequent values of a column of words only",
        ),
        (
            "import no_such_module",
            "train.py imports no_such_module, which the task environment lacks; install it there, and name it in "
            "task.yaml: needs",
        ),
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
    assert prepare(toy, tmp_path / "data") == 2
    assert capsys.readouterr().err == f"python -m tasks: task toy: {reason}\n"
    assert list((tmp_path / "data").iterdir()) == []


def test_a_missing_data_package_is_named(toy, tmp_path, capsys, monkeypatch):
    def missing(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(sources, "version", missing)
    assert prepare(toy, tmp_path / "data") == 2
    assert "task toy takes its data from the package numpy, which is not installed" in capsys.readouterr().err


def test_a_module_that_the_task_environment_lacks_is_named(toy, tmp_path, capsys):
    (toy / "task.yaml").write_text(TASK_YAML + "needs: [json, no_such_module]\n")
    assert prepare(toy, tmp_path / "data") == 2
    assert f"{sys.executable} has no module no_such_module, which train.py imports" in capsys.readouterr().err
    assert list((tmp_path / "data").iterdir()) == []


def test_a_missing_task_environment_is_named(tmp_path, capsys):
    assert door.main(["prepare", "--out", str(tmp_path), "--python", str(tmp_path / "nowhere")]) == 2
    assert f"no task environment at {tmp_path / 'nowhere'}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("m_best: 0.0", "m_best: high", "m_best: Input should be a valid number"),
        ("data: made up", "data: made up\nmbest: 1.0", "mbest: Unexpected keyword argument"),
        ("metric: mae", "metric: maes", r"unknown metric 'maes' \(nearest: mae\)"),
        ("direction: minimize", "direction: maximize", "direction is maximize; expected minimize for mae"),
        ("name: toy", "name: toys", "name is 'toys'; expected the folder's name, 'toy'"),
        ("kind: tabular-regression", "kind: [", "is not YAML"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_file(toy, old, new, reason):
    (toy / "task.yaml").write_text(TASK_YAML.replace(old, new))
    with pytest.raises(ValueError, match=f"{toy / 'task.yaml'}.*{reason}"):
        registry.entries([toy.parent])


@pytest.mark.parametrize("path", ["own", "own/toy"])
def test_a_path_is_a_task_or_a_folder_of_tasks(toy, tmp_path, path):
    assert registry.find("toy", [tmp_path / path]).folder == toy


def test_a_path_without_a_task_and_two_tasks_of_one_name_are_refused(toy, tmp_path):
    with pytest.raises(ValueError, match=f"there is no task in {tmp_path}"):
        registry.entries([tmp_path])
    other = tmp_path / "other" / "toy"
    shutil.copytree(toy, other)
    with pytest.raises(ValueError, match=f"two tasks are named toy: {toy} and {other}"):
        registry.entries([toy.parent, other])
    assert len(registry.entries([toy, toy.parent])) == len(registry.entries([toy]))


def test_the_noise_is_measured_over_seeds_where_a_script_draws(toy, tmp_path):
    prepare(toy, tmp_path / "data")
    assert load(toy, tmp_path / "data").noise == 0.0
    drawing = TRAIN.replace("import os, sys", "import os, sys\nSEED = 0").replace(",2\\n", ",{2 + SEED}\\n")
    (toy / "train.py").write_text(drawing)
    prepare(toy, tmp_path / "data")
    task = load(toy, tmp_path / "data")
    assert task.m_init == 0.5  # seed 0; the others: 2 + seed against 2 and 3
    assert task.noise == pytest.approx(statistics.stdev([0.5, *(seed - 0.5 for seed in SEEDS)]))

    (toy / "task.yaml").write_text(TASK_YAML + "noise: 0.125\n")  # as known, so it takes no runs
    (toy / "train.py").write_text(drawing + "\n")
    prepare(toy, tmp_path / "data")
    assert load(toy, tmp_path / "data").noise == 0.125


def test_data_that_changed_since_are_made_anew(toy, tmp_path, capsys):
    prepare(toy, tmp_path / "data")
    answers = tmp_path / "data/toy/private/answers.csv"
    answers.write_text("id,target\n1,9\n2,9\n")
    prepare(toy, tmp_path / "data")
    assert "prepared already" not in capsys.readouterr().out
    assert answers.read_text() == "id,target\n1,2\n2,3\n"


def test_what_mle_bench_has_prepared_is_taken_as_it_is(toy, tmp_path):
    there = tmp_path / "raw/toy/prepared"
    (there / "public/images").mkdir(parents=True)
    (there / "private").mkdir()
    (there / "public/images/1.png").write_bytes(b"x")
    (there / "public/test.csv").write_text("id,x\n7,2\n")
    (there / "private/answers.csv").write_text("id,target\n7,2\n")
    assert prepare(toy, tmp_path / "data", "--raw", str(tmp_path / "raw")) == 0
    task = load(toy, tmp_path / "data")
    assert task.m_init == 0.0
    instance = Instance(task, Names("p", "a.csv", "b.csv", "s.py"))
    assert sorted(instance.data) == ["images/", "test.csv"]


def test_the_list_says_of_every_task_where_its_data_comes_from(toy, capsys):
    assert door.main(["list", "--path", str(toy.parent)]) == 0
    lines = capsys.readouterr().out.splitlines()
    words = {line.split()[0]: line.split()[5] for line in lines if line.startswith("  ")}
    assert words["house_price"] == words["toy"] == "package"
    assert words["whale-categorization-playground"] == "Kaggle" and words["cifar-10"] == "download"
    assert lines[0] == "The catalog" and "The paper's tasks" in lines and lines[-2] == f"Your own in {toy.parent}"
    assert len(words) == len(registry.entries()) + 1


def test_data_never_go_where_they_come_from_or_where_other_things_are(toy, tmp_path, capsys):
    files = sorted(path.name for path in toy.iterdir())
    assert prepare(toy, toy.parent) == 2
    assert f"its data would go to {toy}, which overlaps with {toy}; choose another --out" in capsys.readouterr().err
    raw = tmp_path / "raw/toy"
    raw.mkdir(parents=True)
    (raw / "mine.csv").write_text("mine")
    assert prepare(toy, raw.parent, "--raw", str(raw.parent)) == 2
    assert prepare(toy, raw.parent) == 2
    assert f"its data would go to {raw}, which contains mine.csv" in capsys.readouterr().err
    assert sorted(path.name for path in toy.iterdir()) == files and (raw / "mine.csv").read_text() == "mine"


def test_two_who_prepare_the_same_task_do_not_mix(toy, tmp_path):
    (toy / "prepare.py").write_text("import time\n" + PREPARE + "    time.sleep(1)\n    (public / 'late').touch()\n")
    command = [sys.executable, "-m", "tasks", "prepare", "toy", "toy", "--path", toy.parent, "--out", tmp_path / "data"]
    both = [subprocess.Popen([*command, "--python", sys.executable], stdout=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate()[0].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted("prepared already" in lines for lines in said) == [False, True]
    assert (tmp_path / "data/toy/public/late").exists()


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("train.py", "print('validation mae: nan')", "train.py printed no line 'validation mae: SCORE'"),
        ("train.py", TRAIN + "open('test.csv', 'a').write('3,4\\n')", "train.py changed its data"),
        ("prepare.py", PREPARE + "    {}['row']\n", "prepare.py, line 5, raised KeyError: 'row'"),
        (
            "prepare.py",
            PREPARE + "    (public / 'more').symlink_to(raw)\n",
            "more is a link, expected files and folders",
        ),
    ],
)
def test_what_a_task_must_not_do_is_said_and_leaves_nothing(toy, tmp_path, capsys, file, text, reason):
    (toy / file).write_text(text)
    assert prepare(toy, tmp_path / "data") == 2
    said = capsys.readouterr().err
    assert reason in said and said.count("\n") == 1
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize(
    "line", ["SEED = 3  # drawn", "x = f(random_state = 7)", "np.random.seed(1)", "default_rng(0)"]
)
def test_every_way_to_state_a_seed_is_seen(line):
    assert with_seed(line, 1001) == re.sub(r"\d+", "1001", line)


def test_files_of_a_task_of_ones_own_are_part_of_what_it_is(toy):
    before = registry.find("toy", [toy]).identity()
    (toy / "raw").mkdir()
    (toy / "raw/data.csv").write_text("a\n1\n")
    with_data = registry.find("toy", [toy]).identity()
    (toy / "raw/data.csv").write_text("a\n1\n2\n")
    assert len({before, with_data, registry.find("toy", [toy]).identity()}) == 3


def test_a_grader_of_ones_own_that_raises_is_an_invalid_submission(toy, tmp_path):
    (toy / "grade.py").write_text(
        "def grade(submission, private):\n    return float(submission.decode().split()[1][-1])\n"
    )
    assert prepare(toy, tmp_path / "data") == 0
    task = load(toy, tmp_path / "data")
    for submission, reason in ((b"", "IndexError"), (b"\xff", "UnicodeDecodeError")):
        with pytest.raises(InvalidSubmission, match=f"the grader cannot read it .{reason}."):
            grade(task, submission)
