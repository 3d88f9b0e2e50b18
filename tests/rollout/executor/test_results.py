"""The submission of a run, and ordinary work in a sandbox."""

import pytest


def test_a_submission_is_collected(sandboxes):
    source = "rows = open('data.csv').read()\nopen('submission.csv', 'w').write(rows.upper())\nprint('done')"
    done = sandboxes.run(source, {"data.csv": b"id\n1\n"})
    assert (done.exit, done.output, done.submission, done.cached) == ("ok", "done\n", b"ID\n1\n", False)
    assert done.tier == sandboxes.tier


def test_an_old_submission_is_not_mistaken_for_a_new_one(sandboxes):
    assert sandboxes.run("pass", {"submission.csv": b"old"}).submission is None


def test_what_a_crashed_script_had_submitted_is_collected(sandboxes):
    done = sandboxes.run("open('submission.csv', 'w').write('early')\n1 / 0")
    assert (done.exit, done.submission) == ("crashed", b"early")


@pytest.mark.parametrize(
    "make",
    [
        "os.symlink({secret!r}, 'submission.csv')",
        "os.symlink('/etc/shadow', 'submission.csv')",
        "open('real.csv', 'w').write('1'); os.symlink('real.csv', 'submission.csv')",
        "os.mkfifo('submission.csv')",
        "os.mkdir('submission.csv')",
        "socket.socket(socket.AF_UNIX).bind('submission.csv')",
        "os.rename('/workspace', '/elsewhere')",
    ],
)
def test_only_a_regular_file_is_a_submission(sandboxes, tmp_path, make):
    secret = tmp_path / "labels.csv"
    secret.write_text("labels")
    done = sandboxes.run("import os, socket\n" + make.format(secret=str(secret)))
    assert done.exit in ("ok", "crashed") and done.submission is None


def test_a_link_would_lead_to_the_labels_without_care(tmp_path):
    secret = tmp_path / "labels.csv"
    secret.write_text("labels")
    (tmp_path / "submission.csv").symlink_to(secret)
    with open(tmp_path / "submission.csv") as file:  # the control of the test above
        assert file.read() == "labels"


def test_a_submission_nobody_may_read_is_none_or_its_own(sandboxes):
    done = sandboxes.run("import os\nopen('submission.csv', 'w').write('x'); os.chmod('submission.csv', 0)")
    assert done.submission in (None, b"x")


def test_a_script_runs_as_python_runs_scripts(sandboxes):
    source = """
import os, sys, threading
import helper
print(__name__, sys.argv, os.getcwd(), sys.stdin.read() == "", helper.VALUE)
print(hash("fixed"), os.environ["OMP_NUM_THREADS"], sys.flags.dont_write_bytecode)
thread = threading.Thread(target=print, args=("thread",)); thread.start(); thread.join()
print("to stderr", file=sys.stderr)
"""
    runs = [sandboxes.run(source, {"helper.py": b"VALUE = 7"}) for _ in range(2)]
    assert runs[0].output == runs[1].output and runs[0].exit == "ok"
    first, second, *rest = runs[0].output.splitlines()
    assert first == "__main__ ['script.py'] /workspace True 7"
    assert second.endswith(" 1 1") and rest == ["thread", "to stderr"]


PARALLEL = """
import multiprocessing, tempfile
from concurrent.futures import ProcessPoolExecutor

def square(x):
    return x * x

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile() as file:
        file.write(b"x")
    with multiprocessing.Pool(2) as pool:
        print(pool.map(square, range(5)))
    for method in ("spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            print(pool.map(square, range(3)))
    with ProcessPoolExecutor(2) as pool:
        print(list(pool.map(square, range(4))))
    with multiprocessing.Manager() as manager:
        shared = manager.dict(a=1)
        print(dict(shared))
"""


def test_multiprocessing_and_temporary_files_work(sandboxes):
    done = sandboxes.run(PARALLEL, seconds=60.0)
    assert (done.exit, done.output) == ("ok", "[0, 1, 4, 9, 16]\n[0, 1, 4]\n[0, 1, 4]\n[0, 1, 4, 9]\n{'a': 1}\n")


LIBRARIES = """
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score

data = pd.read_csv("data.csv")
model = RandomForestClassifier(10, random_state=0, n_jobs=2)
print(cross_val_score(model, data[["a", "b"]], data["y"], cv=2, n_jobs=2).mean() > 0.9)
print(Parallel(n_jobs=2, backend="loky")(delayed(pow)(i, 2) for i in range(4)))
data.to_csv("submission.csv", index=False)
"""


@pytest.mark.slow
def test_scikit_learn_and_joblib_work(sandboxes):
    rows = (
        b"a,b,y\n"
        + b"".join(b"%d,%d,%d\n" % (i, i * i, i % 2 * (i > 0)) for i in range(0))
        + b"".join(b"%d,%d,%d\n" % (i % 2 * 10, i, i % 2) for i in range(100))
    )
    done = sandboxes.run(LIBRARIES, {"data.csv": rows}, seconds=120.0)
    assert done.output == "True\n[0, 1, 4, 9]\n" and done.submission == rows


def test_no_open_file_of_the_launcher_is_inherited(sandboxes, bare):
    look = "import os\nprint([n for n in range(3, 200) if os.path.lexists(f'/proc/self/fd/{n}')])"
    assert sandboxes.run(look).output == bare(look).output == "[]\n"
