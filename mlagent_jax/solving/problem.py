"""The problem to solve: a task whose hidden rows are divided into a part to choose by and a part to report on."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from mlagent_jax.solving.options import SolveLayout, SolveOptions
from rollout.executor.interpreter import TASK_PYTHON
from rollout.task_tools.from_table.create import prepare_table, read_table
from rollout.task_tools.from_table.folder import NewTaskSpec
from rollout.task_tools.from_table.leak_warnings import find_leaks
from rollout.task_tools.from_table.new_rows import RowReader, row_reader
from rollout.task_tools.preparation import prepared_task
from tasks.entry import read_entry
from tasks.holdout import divide
from tasks.metric import OPTIMUM
from tasks.quoting import quoted
from tasks.registry import find
from tasks.split import shuffled
from tasks.task import Task

MIN_PART = 50  # rows to choose by, and rows to report on; of fewer, a score says little


@dataclass(frozen=True)
class Problem:
    """A problem to solve.

    Attributes:
        task: The task; its hidden score is that on the rows to choose by, if it has parts.
        report: The ids of the rows to report on, None if the task's own grader grades all rows together.
        rows: All rows that have a target, as the task's `train.csv` has them; None if the problem is no user's table.
        reader: The reader of further rows of the table.
        new_rows: The rows to predict, as the task's `test.csv` has them, None if there are none.
        new_ids: The cells of their id column, None if they have none.
        own_script: The name of the user's own script, which prints the score and leaves no submission; `` if it is a
            task's.
        notes: Lines for the user about the result.
        is_small: Whether the rows are too few to spare any for a report, which cross-validation gives instead.
    """

    task: Task
    report: Path | None
    rows: pd.DataFrame | None = None
    reader: RowReader | None = None
    new_rows: pd.DataFrame | None = None
    new_ids: list[str] | None = None
    is_small: bool = False
    own_script: str = ""
    notes: tuple[str, ...] = ()


def load_problem(options: SolveOptions, layout: SolveLayout, say: Callable[[str], None]) -> Problem:
    """Return the problem; its data is prepared in the folder of the result.

    Args:
        options: The options.
        layout: The paths of the result.
        say: Called with lines of text about the data.

    Raises:
        ValueError: If the table or the task cannot be used. The message has a remedy.
    """
    problem = _from_task(options, layout, say) if options.task else _from_table(options, layout, say)
    if options.goal:
        text = f"{problem.task.problem.strip()}\n{options.goal.strip()}\n"
        problem = replace(problem, task=replace(problem.task, problem=text))
    if problem.task.grader is not None:
        say("the task has its own grader, so one hidden score both chooses and reports, which makes it too good")
        return problem
    if problem.rows is not None and options.time is None and options.holdout / 2 * len(problem.rows) < MIN_PART:
        say(f"{len(problem.rows)} rows with --holdout {options.holdout:g} are few, so cross-validation gives the score")
        return replace(problem, is_small=True)
    try:
        choose, report = divide(problem.task, layout.parts, options.seed, options.time or "")
    except ValueError as error:
        if not options.group:
            raise ValueError(f"the rows that are held out cannot be divided: {error}; raise --holdout") from None
        say(f"cross-validation gives the score, because the groups that are held out cannot be divided: {error}")
        return replace(problem, is_small=True)
    return replace(problem, task=replace(problem.task, part=choose), report=report)


def _from_table(options: SolveOptions, layout: SolveLayout, say: Callable[[str], None]) -> Problem:
    assert options.csv is not None, "checked with the options"
    spec = NewTaskSpec(
        name=task_name(options.csv),
        csv=options.csv,
        target=options.target,
        metric=options.metric or None,
        out=layout.task,
        test_share=options.holdout,
        id_column=options.id_column,
        form=options.form,
        group=options.group,
        time=options.time,
    )
    table, roles = read_table(spec, say)
    reader = row_reader(table, options.target, options.id_column, options.form, roles)
    new_rows, new_ids = (None, None) if options.test is None else reader.read(options.test)
    folder = layout.task / spec.name
    if (folder / "task.yaml").is_file():
        entry = read_entry(folder / "task.yaml")
        task = prepared_task(entry, layout.data, options.python or TASK_PYTHON)
    else:
        task = prepare_table(spec, table, roles, folder, layout.data, options.python or TASK_PYTHON)
        for warning in find_leaks(task, roles).warnings:
            say(warning)
    task = replace(task, m_best=OPTIMUM[task.direction])
    rows = shuffled_rows(table.cells, options.seed)
    notes = []
    if table.metric == "auc":
        notes.append(f"the predictions are probabilities of {quoted(table.labels['1'])}")
    return Problem(
        task=task,
        report=None,
        rows=rows,
        reader=reader,
        new_rows=None if new_rows is None else numbered(new_rows, len(rows)),
        new_ids=new_ids,
        notes=tuple(notes),
    )


def _from_task(options: SolveOptions, layout: SolveLayout, say: Callable[[str], None]) -> Problem:
    entry = read_entry(options.task_file) if options.task_file else find(options.task)
    return Problem(prepared_task(entry, layout.data, options.python or TASK_PYTHON, say), None)


def task_name(file: Path) -> str:
    """Return a name for the task of a table: the file's name in lower-case letters, digits and underscores."""
    name = re.sub(r"[^a-z0-9]+", "_", file.name.split(".")[0].lower()).strip("_")
    return name if name[:1].isalpha() else f"table_{name}".rstrip("_")


def numbered(rows: pd.DataFrame, first: int = 0) -> pd.DataFrame:
    """Return rows with a first column `id`, whose numbers begin with `first`."""
    rows = rows.reset_index(drop=True)
    rows.insert(0, "id", [str(first + row) for row in range(len(rows))])
    return rows


def shuffled_rows(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return rows in an order that, like their ids, says nothing of the target; so has the task's training data."""
    return numbered(rows.iloc[shuffled(len(rows), seed)])
