"""A user's own script as a task: its score is what it prints, as there are no labels to grade by."""

import math
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mlagent_jax.solving.options import SolveLayout, SolveOptions
from mlagent_jax.solving.problem import Problem, task_name
from rollout.storage.blob_store import BlobStore
from rollout.types import Execution, Executor, Exit, Job
from tasks.feedback import NUMBER
from tasks.metric import METRICS, OPTIMUM, better_direction
from tasks.task import Instance, Limits, Task

GRADER = '''\
"""The grader of a script that prints its own score."""

from tasks.csv_columns import InvalidSubmission


def grade(submission: bytes, private: object) -> float:
    """Return the score that was printed."""
    if not submission:
        raise InvalidSubmission("the script printed no score")
    return float(submission)
'''
MEMORY_MB = 4096  # of a script
SECONDS, MIN_SECONDS, TIME_FACTOR = 3600.0, 20.0, 5.0  # limit of the first run, and of others relative to its time
TEXTS = re.compile(r"Vectorizer\b")
NUMBERS = re.compile(r"Regressor\b|\bRidge\b|\bLasso\b|LinearRegression\b|mean_(?:squared|absolute)_error|r2_score")
PROBLEM = """\
Improve {script}, which prints its score as `{score}`, {better} is better. Keep the way in which it measures the score.
"""


@dataclass(frozen=True)
class PrintedScore:
    """An executor whose submissions are the scores that scripts print.

    Attributes:
        inner: The runner of the scripts.
        pattern: The line with the score, whose group 1 is the number.
        metric: The name of the score.
    """

    inner: Executor
    pattern: re.Pattern[str]
    metric: str

    async def run(self, job: Job) -> Execution:
        """Return the run, with the last printed score as its submission; empty if none was printed."""
        execution = await self.inner.run(job)
        if execution.exit is not Exit.OK:
            return execution
        found = self.pattern.findall(execution.output)
        if not found or not math.isfinite(float(found[-1])):
            return replace(execution, submission=b"")
        output = f"{execution.output.rstrip()}\nvalidation {self.metric}: {found[-1]}\n"
        return replace(execution, output=output, submission=found[-1].encode())


def score_pattern(score: str) -> re.Pattern[str]:
    """Return the pattern of a line such as `validation rmse: *`. Raises ValueError unless it has one star."""
    before, star, after = score.partition("*")
    if not star or "*" in after:
        raise ValueError(f"--score is {score!r}; expected the line that the script prints, with * for the number")
    return re.compile(f"{re.escape(before)}({NUMBER}|nan|-?inf){re.escape(after)}")


def script_problem(options: SolveOptions, layout: SolveLayout, say: Callable[[str], None]) -> Problem:
    """Return the problem of a user's own script, without its first score; see `with_first_score`.

    Raises:
        ValueError: If the script, its data or the direction of its score is missing.
    """
    assert options.script is not None, "checked with the options"
    source = options.script.read_text(encoding="utf-8")
    words = re.findall(r"[a-z_]+", options.score.lower())
    metric = next((word for word in words if word in METRICS), "score")
    direction = options.direction or (METRICS[metric].direction if metric in METRICS else "")
    if not direction:
        raise ValueError(f"--score {options.score!r} names no known metric; add --direction maximize or minimize")
    public, private = layout.data / "public", layout.data / "private"
    if not public.is_dir():
        copy_data(options.data or options.script.parent, public, options.script)
    private.mkdir(parents=True, exist_ok=True)
    grader = layout.task / "grade.py"
    grader.parent.mkdir(parents=True, exist_ok=True)
    grader.write_text(GRADER, encoding="utf-8")
    better = better_direction(direction)
    task = Task(
        name=task_name(options.script),
        kind=kind_of(source),
        split="held_in",
        metric=metric,
        direction=direction,  # type: ignore[arg-type]
        m_init=math.nan,
        validation_init=math.nan,
        m_best=OPTIMUM[direction],
        m_best_source="the metric's optimum",
        problem=PROBLEM.format(script="{script}", score=options.score, better=better) + options.goal,
        script=source,
        public=public,
        private=private,
        grader=grader,
        limits=Limits(seconds=SECONDS, memory_mb=MEMORY_MB),
    )
    say(
        "the score that the script prints both steers and reports, so the result is too good; keep rows for a last test"
    )
    return Problem(task, None, own_script=options.script.name)


def kind_of(source: str) -> str:
    """Return the family of problem that a script is most likely about, by which the scripted agent has its ideas."""
    features = "text" if TEXTS.search(source) else "tabular"
    return f"{features}-{'regression' if NUMBERS.search(source) else 'classification'}"


def copy_data(data: Path, public: Path, script: Path) -> None:
    """Copy what a folder holds, except hidden files and the script; files are hard links where that is possible."""
    made = public.with_name("public.part")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    for path in sorted(data.iterdir()):
        full = path.resolve()
        if path.name.startswith(".") or full == script.resolve() or made.resolve().is_relative_to(full):
            continue
        if path.is_dir():
            shutil.copytree(path, made / path.name, copy_function=_link)
        else:
            _link(path, made / path.name)
    made.rename(public)


def _link(source: Path | str, target: Path | str) -> None:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:  # another disk
        shutil.copyfile(source, target)


async def with_first_score(problem: Problem, executor: Executor, store: BlobStore, instance: Instance) -> Problem:
    """Return the problem with the score of the script as it is, and a time limit by the time that it took.

    Raises:
        ValueError: If the script fails, or prints no score.
    """
    task = problem.task
    data = {
        name: store.put_folder(path) if path.is_dir() else store.put_file(path) for name, path in instance.data.items()
    }
    script = instance.names.script
    files = {**data, script: store.put(task.script.encode())}
    execution = await executor.run(Job(script, files, task.limits, True, frozenset(data), task.name))
    if execution.exit is not Exit.OK or not execution.submission:
        last = (execution.output.strip().splitlines() or ["no output"])[-1]
        what = "printed no score as in --score" if execution.exit is Exit.OK else f"ended early ({execution.exit})"
        raise ValueError(f"the script {what}; its last line: {last[:200]}")
    score = float(execution.submission)
    limits = replace(task.limits, seconds=max(MIN_SECONDS, TIME_FACTOR * execution.seconds))
    return replace(problem, task=replace(task, m_init=score, validation_init=score, limits=limits))
