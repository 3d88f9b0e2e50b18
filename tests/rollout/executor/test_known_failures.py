"""Failures that the sandbox causes, and the cause that is named for each of Python's and the libraries' messages."""

import pytest

from rollout.environment.feedback_text import failure_text
from rollout.executor.known_failures import (
    NO_DISPLAY,
    NO_GPU,
    NO_INPUT,
    NO_NETWORK,
    NO_PACKAGE,
    NO_SHARED_MEMORY,
    NO_SOCKETS,
    NOT_PERMITTED,
    OUT_OF_REACH,
    READ_ONLY,
    SIGNAL,
    cause_of,
    known_failure,
)
from rollout.options import Observation
from rollout.types import Execution, Exit
from tasks.task import Limits

from .conftest import BUBBLEWRAP, LANDLOCK

FEW = Limits(num_processes=20)
PROCESSES = (
    "It needed more than 20 processes and threads; use fewer workers (n_jobs, pool size): 1 can work at the same time."
)
FILES = "It had more than 256 files open at the same time; close each file before opening more."
POOL = "import multiprocessing as m\nif __name__ == '__main__':\n    m.get_context({way}).Pool(96).map(abs, range(9))"
THREADS = (
    "import threading, time\nfor _ in range(96): threading.Thread(target=time.sleep, args=(3,), daemon=True).start()"
)
JOBLIB = (
    "from joblib import Parallel, delayed\nParallel(n_jobs=90, backend='threading')(delayed(abs)(i) for i in range(3))"
)
CHILDREN = "import subprocess\nchildren = [subprocess.Popen(['sleep', '2']) for _ in range(99)]"
LINE = "[Errno 11] Resource temporarily unavailable"
NAME = "Temporary failure in name resolution"

of = pytest.mark.parametrize
DISK = Exit.OUT_OF_DISK

bubblewrap = of("sandboxes", BUBBLEWRAP[1::2], indirect=True, ids="-".join)
landlock = of("sandboxes", LANDLOCK[2:], indirect=True, ids="-".join)
# The texts are those of Python and libraries, so one kind of each tier is enough.
each_tier = of("sandboxes", [BUBBLEWRAP[1], LANDLOCK[2]], indirect=True, ids="-".join)


@bubblewrap
@of(
    ("source", "says"),
    [
        (POOL.format(way="'fork'"), LINE),
        (THREADS, "can't start new thread"),
        (JOBLIB, "DummyProcess"),
        (CHILDREN, LINE),
    ],
    ids=["pool", "threads", "joblib", "children"],
)
def test_the_limit_on_processes_is_named(sandboxes, source, says):
    done = sandboxes.run(source, num_processes=20)
    assert says in done.output.rstrip().splitlines()[-1]
    assert (done.exit, cause_of(done, FEW)) == (Exit.OUT_OF_PROCESSES, PROCESSES)
    assert failure_text("script.py", done, FEW, Observation()).endswith(f"\n{PROCESSES}")


@landlock
@of("source", [THREADS, CHILDREN], ids=["threads", "children"])
def test_the_limit_on_processes_is_named_without_namespaces(sandboxes, source):
    # As an ordinary user, the script is killed once it is seen, and says nothing.
    done = sandboxes.run(f"{source}\nimport time; time.sleep(2)", num_processes=20)
    assert (done.exit, cause_of(done, FEW)) == (Exit.OUT_OF_PROCESSES, PROCESSES)


@bubblewrap
@pytest.mark.slow
@of(
    "source",
    [
        "from concurrent.futures import ProcessPoolExecutor\nwith ProcessPoolExecutor(90) as p: p.map(abs, range(99))",
        "from joblib import Parallel, delayed\nParallel(n_jobs=8)(delayed(abs)(i) for i in range(99))",
        POOL.format(way="'forkserver'"),
    ],
    ids=["futures", "loky", "forkserver"],
)
def test_pools_that_hang_at_the_limit_name_it(sandboxes, source):
    limits = Limits(num_processes=12, seconds=8.0)
    done = sandboxes.run(source, num_processes=12, seconds=8.0)
    assert done.exit in (Exit.TIMEOUT, Exit.OUT_OF_PROCESSES)
    assert cause_of(done, limits) == PROCESSES.replace("20", "12")


@each_tier
def test_native_libraries_without_threads_name_the_limit(sandboxes):
    done = sandboxes.run("import numpy\nprint('begun')", num_processes=1, num_threads=2)
    if done.output != "begun\n":  # NumPy has seen two cores
        assert "pthread_create failed" in done.output or done.tier == "landlock"  # which may end the script itself
        assert done.exit is Exit.OUT_OF_PROCESSES or done.output.endswith("begun\n")  # or does without them


@each_tier
@of(
    ("source", "says"),
    [
        ("files = [open(f'{n}', 'w') for n in range(400)]", "OSError: [Errno 24] Too many open files"),
        (
            "import os, subprocess\nkept = [os.dup(1) for _ in range(252)]\nsubprocess.run(['true'])",
            "Too many open files",
        ),
    ],
    ids=["files", "pipes"],
)
def test_the_limit_on_open_files_is_named(sandboxes, source, says):
    done = sandboxes.run(source)
    assert says in done.output and (done.exit, cause_of(done, FEW)) == (Exit.OUT_OF_FILES, FILES)


@each_tier
@of(
    ("source", "says", "exit"),
    [
        ("import numpy\nnumpy.zeros(1 << 40)", "Unable to allocate 8.00 TiB", Exit.OUT_OF_MEMORY),
        (
            "import numpy\ntry: numpy.zeros(1 << 40)\nexcept MemoryError as e: raise RuntimeError('no fit') from e",
            "RuntimeError: no fit",
            Exit.OUT_OF_MEMORY,
        ),
        ("import mmap\nkept = [mmap.mmap(-1, 1 << 31) for _ in range(9)]", "[Errno 12]", Exit.OUT_OF_MEMORY),
        ("import numpy\nnumpy.save('x', numpy.zeros(5_000_000))", "requested and", Exit.OUT_OF_DISK),
        ("import subprocess\nsubprocess.run('head -c 40M /dev/zero >x', shell=1, check=1)", "SIGXFSZ", DISK),
        (
            "import sqlite3\nc = sqlite3.connect('x')\nc.execute('create table t(x)')\n"
            "c.executemany('insert into t values(?)', (('y' * 1_000_000,) for _ in range(60)))\nc.commit()",
            "sqlite3.OperationalError",
            Exit.OUT_OF_DISK,
        ),
    ],
    ids=["array", "chained", "mmap", "short write", "signal", "database"],
)  # fmt: skip
def test_limits_on_memory_and_disk_are_recognized_in_the_words_of_libraries(sandboxes, source, says, exit):
    done = sandboxes.run(source)
    assert says in done.output or "File size limit" in done.output
    assert done.exit is exit


COMMON = {
    "network": ("import urllib.request\nurllib.request.urlopen('https://example.com/')", NAME, NO_NETWORK),
    "package": ("import xgboost", "No module named 'xgboost'", NO_PACKAGE),
    "install": (
        "import subprocess, sys\nsubprocess.check_call([sys.executable, '-m', 'pip', 'install', 'xgboost'])",
        "non-zero exit status",
        NO_PACKAGE,
    ),
    "program": ("import subprocess\nsubprocess.run(['conda', 'install', 'xgboost'])", "'conda'", NO_PACKAGE),
    "input": ("input('rate? ')", "EOF when reading a line", NO_INPUT),
    "affinity": ("import os\nos.sched_setaffinity(0, {0})", "Operation not permitted", NOT_PERMITTED),
    "signal": ("import os\nos.kill(os.getpid(), 11)", "", SIGNAL),
}
PANDAS = {  # forked interpreters have imported it; a fresh one takes a second
    "parquet": ("import pandas\npandas.DataFrame({'a': [1]}).to_parquet('x')", "`Import pyarrow` failed", NO_PACKAGE),
    "plot": ("import pandas\npandas.DataFrame({'a': [1]}).plot()", "is required for plotting", NO_PACKAGE),
}


@each_tier
@of(("source", "says", "cause"), COMMON.values(), ids=COMMON)
def test_what_a_sandbox_lacks_is_named(sandboxes, source, says, cause):
    check_lacks(sandboxes, source, says, cause)


@of("sandboxes", [BUBBLEWRAP[1], pytest.param(LANDLOCK[2], marks=pytest.mark.slow)], indirect=True, ids="-".join)
@of(("source", "says", "cause"), PANDAS.values(), ids=PANDAS)
def test_packages_that_pandas_lacks_are_named(sandboxes, source, says, cause):
    check_lacks(sandboxes, source, says, cause)


def check_lacks(sandboxes, source, says, cause):
    done = sandboxes.run(source)
    exit = Exit.KILLED if cause == SIGNAL else Exit.CRASHED
    assert says in done.output and (done.exit, cause_of(done, FEW)) == (exit, cause)
    assert failure_text("script.py", done, FEW, Observation()).endswith(f"\n{cause}")


@bubblewrap
@of(
    ("source", "says", "cause"),
    [
        ("import socket\nsocket.create_connection(('93.184.216.34', 80))", "Network is unreachable", NO_NETWORK),
        ("open('/usr/x', 'w')", "Read-only file system", READ_ONLY),
        ("import os\nos.makedirs('/kaggle/working')", "Read-only file system", READ_ONLY),
    ],
    ids=["address", "file", "folder"],
)
def test_what_a_bubblewrap_sandbox_lacks_is_named(sandboxes, source, says, cause):
    check_lacks(sandboxes, source, says, cause)


LANDLOCKED = {
    "pool": (POOL.format(way="'fork'").replace("96", "2"), "PermissionError", NO_SHARED_MEMORY),
    "lock": ("import multiprocessing\nmultiprocessing.Lock()", "PermissionError", NO_SHARED_MEMORY),
    "futures": (
        "from concurrent.futures import ProcessPoolExecutor\nProcessPoolExecutor(2).submit(abs, 1)",
        "PermissionError",
        NO_SHARED_MEMORY,
    ),
    "array": (
        "from multiprocessing import shared_memory\nshared_memory.SharedMemory(create=True, size=9)",
        "Permission denied: '/psm_",
        NO_SHARED_MEMORY,
    ),
    "manager": ("import multiprocessing\nmultiprocessing.Manager()", "EOFError", NO_SOCKETS),
    "address": ("import socket\nsocket.create_connection(('93.184.216.34', 80))", "[Errno 97]", NO_SOCKETS),
    "folder": ("open('/tmp/x', 'w')", "Permission denied: '/tmp/x'", OUT_OF_REACH),
}


@landlock
@of(("source", "says", "cause"), LANDLOCKED.values(), ids=LANDLOCKED)
def test_what_a_landlock_sandbox_lacks_is_named(sandboxes, source, says, cause):
    check_lacks(sandboxes, source, says, cause)


T = 'Traceback (most recent call last):\n  File "/workspace/oak.py", line 3, in <module>\n    fit()\n'


def failed(output: str, exit: Exit = Exit.CRASHED) -> Execution:
    return Execution(exit, output, None, 20.0, "test")


@of(
    ("output", "exit"),
    [
        (T + "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried", Exit.OUT_OF_MEMORY),
        (T + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", Exit.OUT_OF_MEMORY),
        ("terminate called after throwing an instance of 'std::bad_alloc'\n", Exit.OUT_OF_MEMORY),
        ("OpenBLAS error: Memory allocation still failed after 10 retries, giving up.\n", Exit.OUT_OF_MEMORY),
        ("\nlibgomp: Thread creation failed: Resource temporarily unavailable\n", Exit.OUT_OF_PROCESSES),
        (
            "terminate called after throwing an instance of 'std::system_error'\n"
            "  what():  Resource temporarily unavailable\n",
            Exit.OUT_OF_PROCESSES,
        ),
        ("/bin/sh: 1: Cannot fork\n" + T + "subprocess.CalledProcessError: Command 'x'", Exit.OUT_OF_PROCESSES),
        (T + "OSError: [Errno 28] No space left on device: 'x'\n\nDuring handling of the above exception, another "
         "exception occurred:\n\n" + T + "ValueError: I/O operation on closed file", Exit.OUT_OF_DISK),
    ],
)  # fmt: skip
def test_what_no_test_can_cause_is_recognized_by_its_text(output, exit):
    failure = known_failure(output)
    assert failure is not None and failure.exit is exit


def test_the_memory_of_a_gpu_is_not_called_the_scripts_memory():
    done = failed(T + "torch.OutOfMemoryError: CUDA out of memory.", Exit.OUT_OF_MEMORY)
    text = failure_text("oak.py", done, Limits(num_gpus=1), Observation())
    assert "MiB" not in text and "more memory than its GPU has" in text


@of(
    ("error", "cause"),
    [
        ("RuntimeError: No CUDA GPUs are available", NO_GPU),
        ("AssertionError: Torch not compiled with CUDA enabled", NO_GPU),
        ("_tkinter.TclError: no display name and no $DISPLAY environment variable", NO_DISPLAY),
        ("ImportError: Cannot load backend 'TkAgg' which requires the 'tk' interactive framework", NO_DISPLAY),
        ("OSError: We couldn't connect to 'https://huggingface.co' to load this file", NO_NETWORK),
        ("ImportError: Missing optional dependency 'lxml'.  Use pip or conda to install lxml.", NO_PACKAGE),
        ("PermissionError: [Errno 13] Permission denied: '/root/x'", OUT_OF_REACH),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'sudo'", NO_PACKAGE),
    ],
)
def test_crashes_for_what_is_missing_say_so(error, cause):
    done = failed(T + error)
    assert cause_of(done, Limits()) == cause
    assert cause_of(done, Limits(num_gpus=1)) == ("" if cause == NO_GPU else cause)


@of(
    "line",
    [
        "git: 'remote-https' is not a git command. See 'git --help'.",
        "fatal: unable to access 'https://github.com/a/b/': Could not resolve host: github.com",
        "wget: unable to resolve host address 'example.com'",
    ],
)
def test_a_program_without_a_network_says_so_before_the_traceback(line):
    output = f"{line}\n{T}subprocess.CalledProcessError: Command '['git']' returned non-zero exit status 128."
    assert cause_of(failed(output), Limits()) == NO_NETWORK


def test_a_script_that_waited_for_the_network_until_its_time_was_over_is_told_so():
    output = "retrying in 8 s: [Errno -3] Temporary failure in name resolution\n"
    expected = f"Stopped: oak.py ran longer than 20 s.\n{NO_NETWORK}"
    assert failure_text("oak.py", failed(output, Exit.TIMEOUT), Limits(), Observation()) == expected
    assert cause_of(failed("epoch 3\n", Exit.TIMEOUT), Limits()) == ""
    assert cause_of(failed(output, Exit.OUT_OF_DISK), Limits()) == ""


@of(
    "output",
    [
        T + "KeyError: 'age'",
        T + "ValueError: Out of memory slots in column 'ram'",  # a word in a message of the script
        T + "KeyError: 'std::bad_alloc'",
        T + "ValueError: the thread is gone: Resource temporarily unavailable",
        T + "MemoryError\nno memory, trying less\n" + T + "KeyError: 'age'",  # handled and printed
        T + "BlockingIOError: [Errno 11] Resource temporarily unavailable",  # of a pipe or socket, not of a fork
        T + "FileNotFoundError: [Errno 2] No such file or directory: 'tran.csv'",
        T + "PermissionError: [Errno 13] Permission denied: 'train.csv'",
        T + "ModuleNotFoundError: No module named 'sklearn.nothing'",  # a typing error, not a missing package
        "Segmentation fault\n",
        "",
    ],
)
def test_ordinary_failures_read_as_before(output):
    done = failed(output)
    assert known_failure(output) is None and cause_of(done, FEW) == ""
    assert failure_text("oak.py", done, FEW, Observation()).startswith("Error: oak.py crashed.")
