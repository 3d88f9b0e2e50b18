"""The files that a script can read in a Landlock sandbox, and ordinary work in it."""

import pytest

from .conftest import LANDLOCK

landlock = pytest.mark.parametrize("sandboxes", LANDLOCK, indirect=True, ids="-".join)

READ = """
import glob, os, sys, sysconfig
WORDS = ("iris", "diabetes", "breast_cancer", "digits", "wine_", "linnerud", "movie_review")
ENDS = (".csv", ".gz", ".rst", ".parquet", ".npz", ".zip", ".json", ".txt")
roots = ("/usr", "/usr/local", sys.base_prefix)
packages = tuple(path for root in roots for path in glob.glob(root + "/lib/python3*/*-packages"))
num_modules = 0
for top in (sysconfig.get_path("purelib"), sysconfig.get_path("stdlib"), *packages):
    for folder, _, files in os.walk(top):
        for name in files:
            path = os.path.join(folder, name)
            is_package = path.startswith(packages)
            is_data = name.endswith(ENDS) and any(word in name.lower() for word in WORDS)
            if name != "__init__.py" and not is_package and not is_data:
                continue
            try:
                open(path, "rb").read(1)
            except OSError:
                continue
            num_modules += not is_package and not is_data
            if is_data or is_package:
                print("DATA" if is_data else "PACKAGE", path)
print(num_modules > 300)
"""


@pytest.mark.slow
@landlock
def test_neither_data_sets_nor_other_interpreters_packages_can_be_read(sandboxes, bare):
    control = bare(READ).output
    assert "iris.csv" in control and "PACKAGE" in control
    inside = sandboxes.run(READ, seconds=120.0)
    assert (inside.exit, inside.output) == ("ok", "True\n")


@landlock
def test_the_machines_scratch_folders_are_closed(sandboxes):
    leave = """
for path in ("/tmp/left", "/dev/shm/left", "/var/tmp/left", "/dev/left", "../left", "/proc/self/comm"):
    try:
        open(path, "w").write("left")
        print("LEFT", path)
    except OSError:
        pass
open("here", "w"); import tempfile; tempfile.mkstemp()
"""
    done = sandboxes.run(leave)
    assert (done.exit, done.output) == ("ok", "")
    look = "import os, tempfile; print(os.listdir('.'), os.listdir(tempfile.gettempdir()))"
    assert sandboxes.run(look).output == "['script.py'] []\n"


@landlock
def test_data_are_read_in_place_and_stay_unchanged(sandboxes):
    data, names = {"data.csv": b"id\n1\n"}, frozenset({"data.csv"})
    attack = """
import os
print(open("data.csv").read().split())
def overwrite(): open("data.csv", "w")
def reopen(): os.open(f"/proc/self/fd/{os.open('data.csv', os.O_RDONLY)}", os.O_RDWR)
def link(): os.link(os.path.realpath("data.csv"), "other.csv")
def remove(): os.remove(os.path.realpath("data.csv"))
def look(): os.listdir(os.path.dirname(os.path.realpath("data.csv")))
def others(): open("script.py/../" + os.path.dirname(os.path.realpath("data.csv")) + "/..")
for way in (overwrite, reopen, link, remove, look, others):
    try:
        way()
        print("DONE", way.__name__)
    except OSError:
        pass
os.chmod("data.csv", 0)
"""
    done = sandboxes.run(attack, data, names)
    assert (done.exit, done.output) == ("ok", "['id', '1']\n")
    assert "DONE overwrite" in sandboxes.run(attack, data).output  # the control: a copy is the script's own
    assert sandboxes.run("print(open('data.csv').read().split())", data, names).output == "['id', '1']\n"


@landlock
def test_a_script_in_a_folder_of_its_own_runs_as_python_runs_scripts(sandboxes):
    source = """
import os, shutil, sys, tempfile, helper
print(__name__, sys.argv, os.path.basename(os.getcwd()), sys.stdin.read() == "", helper.VALUE)
print(os.environ["OMP_NUM_THREADS"], sys.flags.dont_write_bytecode, sys.prefix != sys.base_prefix)
shutil.copy2("helper.py", os.path.expanduser("~/copy.py")); shutil.copytree(".", tempfile.mkdtemp() + "/tree")
os.system("echo shell")
print("to stderr", file=sys.stderr)
"""
    runs = [sandboxes.run(source, {"helper.py": b"VALUE = 7"}) for _ in range(2)]
    expected = "__main__ ['script.py'] workspace True 7\n1 1 True\nshell\nto stderr\n"
    assert [(done.exit, done.output) for done in runs] == [("ok", expected)] * 2


@pytest.mark.slow
@landlock
def test_scikit_learn_works_in_one_process(sandboxes):
    source = """
import numpy as np, pandas as pd
from joblib import Parallel, delayed
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score

data = pd.DataFrame({"a": np.arange(100) % 2, "b": np.arange(100)})
model = RandomForestClassifier(10, random_state=0, n_jobs=2)
print(cross_val_score(model, data[["a", "b"]], data["a"], cv=2, n_jobs=2).mean() > 0.9)
print(Parallel(n_jobs=2)(delayed(pow)(i, 2) for i in range(4)))
"""
    done = sandboxes.run(source, seconds=120.0)
    assert (done.exit, done.output) == ("ok", "True\n[0, 1, 4, 9]\n")
