"""A task as the environment sees it, and one episode's instance of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from tasks.naming import Names

MIB = 1 << 20  # bytes
SUBMISSION = "submission.csv"  # the file with a script's predictions


@dataclass(frozen=True)
class Limits:
    """What one run of a script may use; every limit has an outcome of its own when it is hit.

    Attributes:
        seconds: wall clock over set-up, run and collection together.
        memory_mb: resident memory of the whole process tree, in MiB.
        num_processes: processes and threads at one time.
        file_mb: size of any single file the script writes, in MiB.
        workspace_mb: size of the workspace, and of /tmp, in MiB.
        output_kb: size of the standard output kept, head and tail together, in KiB.
        num_threads: cores that the processes of the run share.
        num_gpus: GPUs that the run has for itself.
    """

    seconds: float = 20.0
    memory_mb: int = 1536
    num_processes: int = 64
    file_mb: int = 32
    workspace_mb: int = 128
    output_kb: int = 64
    num_threads: int = 1
    num_gpus: int = 0


@dataclass(frozen=True)
class Submission:
    """What a submission file looks like.

    Attributes:
        id: the column of ids, in the answers too.
        columns: the other columns, in any order; empty for `target`, or for a distribution for its classes.
    """

    id: str = "id"
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """One prepared ML problem: its text, its data, how it is scored.

    Attributes:
        name: the name of the folder that it is stated in.
        kind: the family of problem, such as `tabular-regression`.
        split: `held_in` tasks are learnt from, `held_out` tasks are only evaluated.
        metric: a name in `tasks.metric.METRICS`.
        direction: `maximize` or `minimize`.
        m_init: hidden-label score of the initial script, measured when the task was prepared.
        validation_init: the score the initial script prints about itself, on its own validation split.
        m_best: the score taken as the best achievable.
        m_best_source: where `m_best` comes from, for people.
        problem: the problem text, with `{script}` to be filled in. Where it has `{train_file}` and `{test_file}`, the
            names of `train.csv` and `test.csv` are drawn anew for each episode; else data keep their names.
        script: source of the initial `train.py`.
        public: folder of the data, files and folders; the only data a script can read, and it cannot write to them.
        private: folder of the answers; never visible inside a sandbox.
        submission: what the columns of a submission are called.
        answers: the file in `private` that submissions are held against.
        grader: a `grade.py` that does it in place of the metric library.
        limits: what one script run may use.
        deterministic: whether a recorded result of a script may stand for a run of it.
        noise: standard deviation of the hidden score over a script's random seeds.
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
    limits: Limits = field(default_factory=Limits)
    deterministic: bool = True
    noise: float = 0.0

    def gain(self, metric: float) -> float:
        """Return the share of the way from `m_init` to `m_best` that `metric` has gone.

        (m - m_init) / (m_best - m_init): 0 for the initial script, 1 at `m_best`, unbounded on both sides. The
        denominator carries the sign, so the same formula serves metrics to maximize and to minimize.
        """
        return (metric - self.m_init) / (self.m_best - self.m_init)

    def relative_gain(self, metric: float) -> float:
        """Return the paper's relative gain, beta (m - m_init) / |m_init|, with beta = -1 for metrics to minimize.

        Where m_init is 0 there is none, and it is `gain`.
        """
        if self.m_init == 0:
            return self.gain(metric)
        beta = 1.0 if self.direction == "maximize" else -1.0
        return beta * (metric - self.m_init) / abs(self.m_init)

    def is_better(self, a: float, b: float) -> bool:
        """Return whether score `a` beats score `b` in the task's direction."""
        return a > b if self.direction == "maximize" else a < b


@dataclass(frozen=True)
class Instance:
    """A task under the surface names of one episode."""

    task: Task
    names: Names

    def problem(self) -> str:
        """Return the problem text with this episode's names in it."""
        text = self.task.problem.strip()
        for name in ("train_file", "test_file", "script"):
            text = text.replace(f"{{{name}}}", getattr(self.names, name))
        return text

    def script_source(self) -> str:
        """Return the initial script, reading this instance's data files."""
        source = self.task.script
        for name, drawn in self._drawn().items():
            for quote in ('"', "'"):
                source = source.replace(f"{quote}{name}{quote}", f"{quote}{drawn}{quote}")
        return source

    @cached_property
    def data(self) -> Mapping[str, Path]:
        """The data by the names that they have in the workspace; that of a folder ends in `/`."""
        drawn = self._drawn()
        found = {drawn.get(path.name, path.name): path for path in sorted(self.task.public.iterdir())}
        return {f"{name}/" if path.is_dir() else name: path for name, path in found.items()}

    @property
    def read_only(self) -> frozenset[str]:
        """Name the agent may read but not overwrite."""
        return frozenset(self.data)

    def _drawn(self) -> dict[str, str]:
        if "{train_file}" not in self.task.problem and "{test_file}" not in self.task.problem:
            return {}
        return {"train.csv": self.names.train_file, "test.csv": self.names.test_file}
