"""Measure a task's initial script: its hidden score, the score that it prints, and the noise over random seeds."""

import math
import re
import signal
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rollout.executor.known_failures import known_failure
from rollout.types import Exit
from tasks.feedback import validation_score
from tasks.grading import InvalidSubmission, grade
from tasks.task import SUBMISSION, Task

# The seeds in a script, which preparation and benchmarks replace.
SEED = re.compile(
    r"(?<=\brandom_state=)\d+|(?<=\brandom_state = )\d+|(?<=^SEED = )\d+|(?<=seed\()\d+|(?<=default_rng\()\d+",
    re.MULTILINE,
)
SEEDS = (1001, 1002, 1003)  # in addition to the script's own
NO_MODULE = re.compile(r"^ModuleNotFoundError: No module named '([^']+)'")
MAX_FILES = 3  # that a message names
SLACK = 3.0  # factor on the time limit, which is meant for a sandbox on an idle machine


@dataclass(frozen=True)
class InitialScore:
    """The measurements of an initial script.

    Attributes:
        m_init: The hidden score.
        validation: The validation score that the script prints.
        noise: The standard deviation of the hidden score over random seeds.
        seconds: The wall-clock time of the script.
    """

    m_init: float
    validation: float
    noise: float
    seconds: float


def failure_text(task: Task, status: int, errors: str) -> str:
    """Return why a script failed, with what helps if the cause is known.

    Args:
        task: The task.
        status: The exit status, negative for a signal.
        errors: The standard error of the script.
    """
    last = (errors.strip().splitlines() or ["no output"])[-1]
    known = known_failure(errors)
    if status == -signal.SIGKILL or (known is not None and known.exit is Exit.OUT_OF_MEMORY):
        return (
            f"ran out of memory on {size_text(task)} ({last[:200]}); let it use fewer rows or columns, such as the "
            "frequent values of a column of words only"
        )
    if missing := NO_MODULE.search(last):
        return (
            f"imports {missing[1]}, which the task environment lacks; install it there, and name it in task.yaml: needs"
        )
    return f"ended with status {status}: {last}"


def size_text(task: Task) -> str:
    """Return the names and sizes of the task's public files."""
    files = [path for path in sorted(task.public.iterdir()) if path.is_file()]
    return ", ".join(f"{path.name} ({path.stat().st_size / 1e6:.1f} MB)" for path in files[:MAX_FILES]) or "its data"


def measure(task: Task, noise: float | None, python: Path) -> InitialScore:
    """Return the measurements of a task's initial script; a known `noise` is not measured.

    Raises ValueError if the script fails.
    """
    m_init, validation, seconds = run(task, task.script, python)
    return InitialScore(m_init, validation, measure_noise(task, python, m_init) if noise is None else noise, seconds)


def measure_noise(task: Task, python: Path, m_init: float) -> float:
    """Return the standard deviation of the hidden score over seeds, 0 if the script has no seed."""
    if not SEED.search(task.script):
        return 0.0
    return statistics.stdev([m_init, *(run(task, with_seed(task.script, seed), python)[0] for seed in SEEDS)])


def with_seed(source: str, seed: int) -> str:
    """Return a script with all its seeds replaced by `seed`."""
    return SEED.sub(str(seed), source)


def run(task: Task, source: str, python: Path) -> tuple[float, float, float]:
    """Return a script's hidden score, the validation score that it prints, and its wall-clock time in seconds.

    The script belongs to the task and is trusted, so it runs as a plain process in a temporary folder with links to the
    data. Its environment is empty, and it has the task's number of threads, because another order of summation would
    give another score. Raises ValueError if the script fails.
    """
    limit, threads = SLACK * task.limits.seconds, str(task.limits.num_threads)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "train.py").write_text(source, encoding="utf-8")
        for path in task.public.iterdir():
            (Path(folder) / path.name).symlink_to(path.absolute())
        start = time.monotonic()
        try:
            done = subprocess.run(
                [python.absolute(), "-I", "train.py"],
                cwd=folder,
                env={"HOME": folder, "LANG": "C.UTF-8", "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=limit,
            )
        except subprocess.TimeoutExpired:
            raise ValueError(
                f"task {task.name}: train.py ran for more than {limit:.0f} s, {SLACK:g} times limits.seconds, on "
                f"{size_text(task)}; let it use fewer rows or columns, or raise limits: seconds in task.yaml"
            ) from None
        seconds = time.monotonic() - start
        if done.returncode != 0:
            raise ValueError(f"task {task.name}: train.py {failure_text(task, done.returncode, done.stderr)}")
        validation = validation_score(done.stdout)
        if validation is None or not math.isfinite(validation):
            raise ValueError(f"task {task.name}: train.py printed no line 'validation {task.metric}: SCORE'")
        try:
            submission = (Path(folder) / SUBMISSION).read_bytes()
        except FileNotFoundError:
            raise ValueError(f"task {task.name}: train.py left no {SUBMISSION}") from None
        try:
            return grade(task, submission), validation, seconds
        except InvalidSubmission as error:
            raise ValueError(f"task {task.name}: train.py left an invalid {SUBMISSION}: {error}") from None
