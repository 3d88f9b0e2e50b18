"""What a task's initial script scores, what it says of itself, and how far luck moves it."""

import math
import re
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tasks.feedback import validation_score
from tasks.grading import InvalidSubmission, grade
from tasks.task import SUBMISSION, Task

# How a script says what it draws at random by; `prepare` and benchmarks change the number.
SEED = re.compile(
    r"(?<=\brandom_state=)\d+|(?<=\brandom_state = )\d+|(?<=^SEED = )\d+|(?<=seed\()\d+|(?<=default_rng\()\d+",
    re.MULTILINE,
)
SEEDS = (1001, 1002, 1003)  # besides the script's own
SLACK = 3.0  # the script's time limit is for a sandbox on an idle machine


@dataclass(frozen=True)
class Measured:
    """What was found out about an initial script.

    Attributes:
        m_init: its hidden score.
        validation: the score it prints about itself.
        noise: standard deviation of the hidden score over random seeds.
        seconds: its wall clock.
    """

    m_init: float
    validation: float
    noise: float
    seconds: float


def measure(task: Task, noise: float | None, python: Path) -> Measured:
    """Return what the initial script of a task does on its data; `noise` is its noise where that is known.

    Raises ValueError where the script does not do its work.
    """
    m_init, validation, seconds = run(task, task.script, python)
    return Measured(m_init, validation, measure_noise(task, python, m_init) if noise is None else noise, seconds)


def measure_noise(task: Task, python: Path, m_init: float) -> float:
    """Return the standard deviation of the hidden score over seeds, 0 where the script has none."""
    if not SEED.search(task.script):
        return 0.0
    return statistics.stdev([m_init, *(run(task, with_seed(task.script, seed), python)[0] for seed in SEEDS)])


def with_seed(source: str, seed: int) -> str:
    """Return a script with every seed in it replaced by `seed`."""
    return SEED.sub(str(seed), source)


def run(task: Task, source: str, python: Path) -> tuple[float, float, float]:
    """Return the hidden score of a script, the score it prints about itself, and its seconds.

    The script is the task's own and trusted, so it runs as a plain process: in a folder of its own with links to the
    data, with an empty environment, and as many threads as it may have, since sums in another order are other scores.
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
                text=True,
                timeout=limit,
            )
        except subprocess.TimeoutExpired:
            raise ValueError(
                f"task {task.name}: train.py ran for more than {limit:.0f} s, {SLACK:g} times limits.seconds; "
                "make it faster, or raise the limit"
            ) from None
        seconds = time.monotonic() - start
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise ValueError(f"task {task.name}: train.py ended with status {done.returncode}: {last}")
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
