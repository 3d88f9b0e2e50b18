"""A prepared task, and the instance of it that one episode works on."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Literal

from tasks.naming import Names, draw_names

SUBMISSION = "submission.csv"  # the file with a script's predictions


@dataclass(frozen=True)
class Limits:
    """The resource limits of one script run.

    Attributes:
        seconds: Wall-clock time of set-up, run and collection together.
        memory_mb: Resident memory of the whole process tree, in MiB.
        num_processes: Number of concurrent processes and threads.
        file_mb: Size of any single file that the script writes, in MiB.
        workspace_mb: Size of the workspace, and of /tmp, in MiB.
        output_kb: Size of the standard output that is kept, head and tail together, in KiB.
        num_threads: Number of cores that the processes of the run share.
        num_gpus: Number of GPUs reserved for the run.
    """

    seconds: float = 20.0
    memory_mb: int = 1536
    num_processes: int = 64
    file_mb: int = 32
    workspace_mb: int = 128
    output_kb: int = 64
    num_threads: int = 1
    num_gpus: int = 0

    def __post_init__(self) -> None:
        for limit in fields(self):
            value, least = getattr(self, limit.name), 0 if limit.name == "num_gpus" else 1
            if not (value >= least or limit.name == "seconds" and value > 0):  # nan is neither
                expected = "a positive number" if least else "0 or more"
                raise ValueError(f"limits.{limit.name}: got {value:g}, expected {expected}")


@dataclass(frozen=True)
class Submission:
    """The columns of a submission file.

    Attributes:
        id: The id column, in submissions and in the answers.
        columns: The other columns, in any order. Empty means `target`, or the classes of a distribution.
    """

    id: str = "id"
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """One prepared ML problem: its text, its data, and its scoring.

    Attributes:
        name: The name of the folder that describes the task.
        kind: The family of problem, such as `tabular-regression`.
        split: `held_in` for tasks that are trained on, `held_out` for tasks that are only evaluated.
        metric: A name in `tasks.metric.METRICS`, or any name if the task has its own grader.
        direction: `maximize` or `minimize`.
        m_init: The hidden score of the initial script, measured when the task was prepared.
        validation_init: The score that the initial script prints, on its own validation split.
        m_best: The score taken as the best achievable.
        m_best_source: The origin of `m_best`, for people.
        problem: The problem text, with the placeholder `{script}`. If it has the placeholders `{train_file}` and
            `{test_file}`, each episode draws names for `train.csv` and `test.csv`; otherwise data keeps its names.
        script: The source of the initial `train.py`.
        public: The folder of the data, which may hold folders; the only data a script can read, and read-only.
        private: The folder of the answers; never visible inside a sandbox.
        submission: The columns of a submission.
        answers: The file in `private` that submissions are graded against.
        grader: A `grade.py` that replaces the metric library, None if there is none.
        group: The column whose rows with the same value are all training rows or all test rows, `` if there is none.
        limits: The limits of one script run.
        deterministic: Whether a cached result of a script may replace a run of it.
        noise: The standard deviation of the hidden score over a script's random seeds.
        part: A file of the ids of the test rows that are graded, one a line; None grades all. A task with its own
            grader has no parts.
    """

    name: str
    kind: str
    split: Literal["held_in", "held_out"]
    metric: str
    direction: Literal["maximize", "minimize"]
    m_init: float
    validation_init: float
    m_best: float
    m_best_source: str
    problem: str
    script: str
    public: Path
    private: Path
    submission: Submission = field(default_factory=Submission)
    answers: str = "answers.csv"
    grader: Path | None = None
    group: str = ""
    limits: Limits = field(default_factory=Limits)
    deterministic: bool = True
    noise: float = 0.0
    part: Path | None = None

    def gain(self, metric: float) -> float:
        """Return (m - m_init) / (m_best - m_init) for the hidden score m.

        It is 0 for the initial script, 1 at `m_best`, and unbounded on both sides. The denominator has the sign of the
        direction, so the formula holds for metrics to maximize and to minimize.
        """
        return (metric - self.m_init) / (self.m_best - self.m_init)

    def relative_gain(self, metric: float) -> float:
        """Return the paper's relative gain, beta (m - m_init) / |m_init|, with beta = -1 for metrics to minimize.

        It is undefined if m_init is 0; then this returns `gain`.
        """
        if self.m_init == 0:
            return self.gain(metric)
        return self.sign * (metric - self.m_init) / abs(self.m_init)

    @property
    def sign(self) -> float:
        """The factor that makes a higher score the better one: 1, or -1 if the metric is to minimize."""
        return 1.0 if self.direction == "maximize" else -1.0

    def is_better(self, a: float, b: float) -> bool:
        """Return whether score `a` is better than score `b` in the task's direction."""
        return a > b if self.direction == "maximize" else a < b


@dataclass(frozen=True)
class Instance:
    """A task under the surface names of one episode."""

    task: Task
    names: Names

    def problem(self) -> str:
        """Return the problem text with this episode's names."""
        text = self.task.problem.strip()
        for name in ("train_file", "test_file", "script"):
            text = text.replace(f"{{{name}}}", getattr(self.names, name))
        return text

    def script_source(self) -> str:
        """Return the initial script with the names of this episode's data files."""
        source = self.task.script
        for name, drawn in self._drawn().items():
            for quote in ('"', "'"):
                source = source.replace(f"{quote}{name}{quote}", f"{quote}{drawn}{quote}")
        return source

    @cached_property
    def data(self) -> Mapping[str, Path]:
        """The paths of the data by their names in the workspace; a folder's name ends in `/`."""
        drawn = self._drawn()
        paths = {drawn.get(path.name, path.name): path for path in sorted(self.task.public.iterdir())}
        return {f"{name}/" if path.is_dir() else name: path for name, path in paths.items()}

    @property
    def read_only(self) -> frozenset[str]:
        """The names in the workspace that the agent may read but not overwrite."""
        return frozenset(self.data)

    def _drawn(self) -> dict[str, str]:
        if "{train_file}" not in self.task.problem and "{test_file}" not in self.task.problem:
            return {}
        return {"train.csv": self.names.train_file, "test.csv": self.names.test_file}


def draw_instance(task: Task, rng: random.Random) -> Instance:
    """Return a task under drawn names; a held-out task has names that no training episode has."""
    return Instance(task, draw_names(rng, held_out=task.split == "held_out"))
