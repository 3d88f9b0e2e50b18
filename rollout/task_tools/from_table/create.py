"""Create a task folder from a user's table; the user may edit its files and train on it."""

import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from rollout.task_tools.from_table.column_roles import ColumnRoles, column_roles
from rollout.task_tools.from_table.folder import NewTaskSpec, write_entry, write_folder
from rollout.task_tools.from_table.leak_warnings import Leaks, find_leaks
from rollout.task_tools.from_table.user_table import UserTable, read_user_table
from rollout.task_tools.preparation import prepared_task
from rollout.task_tools.preparation.initial_score import run
from tasks.entry import read_entry, read_prepared
from tasks.metric import OPTIMUM
from tasks.registry import entries
from tasks.task import Task

NAME = re.compile(r"[a-z][a-z0-9_]*")


# Yields scripts to try from the initial script of a task.
MakeReferences = Callable[[str], Iterable[str]]


def make_task(
    spec: NewTaskSpec, python: Path, make_references: MakeReferences, say: Callable[[str], None] = print
) -> Path:
    """Create a task, run its scripts, and return its folder.

    Args:
        spec: The specification of the task.
        python: The interpreter of the task environment, which runs the scripts.
        make_references: A function that yields the reference scripts; their best score is used if `spec.best` is None.
        say: Called with lines of text about the result.

    Raises:
        ValueError: If no task can be made from the table. The message has a remedy, and nothing is left on the disk.
    """
    folder = spec.out / spec.name
    if not NAME.fullmatch(spec.name):
        raise ValueError(f"a task's name is {spec.name!r}; expected lower-case letters, digits and underscores")
    if spec.name in entries() or folder.exists():
        raise ValueError(f"there is a task {spec.name} already; choose another name, or remove {folder}")
    if spec.test is not None and spec.test_share is not None:
        raise ValueError("--test states the test rows and --test-share draws them; leave one of them out")
    if spec.test_share is not None and not 0 < spec.test_share < 1:
        raise ValueError(f"test_share={spec.test_share}, expected a share between 0 and 1, such as 0.3")
    table, roles = read_table(spec, say)
    spec.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=spec.out, prefix=".new-") as temporary:
        made, data = Path(temporary) / spec.name, Path(temporary) / "data"
        task = prepare_table(spec, table, roles, made, data, python)
        leaks = find_leaks(task, roles, spec.test is None)
        for warning in leaks.warnings:
            say(warning)
        prepared = read_prepared(data / spec.name)
        assert prepared is not None, "prepare_all wrote it"
        if spec.best is not None:
            best, source, scripted = spec.best, "stated by the user", False
        else:
            best, source, scripted = reference(task, python, make_references(task.script))
        require_better(task, best, leaks)
        if scripted and leaks.is_best_possible(task, best):
            say(f"warning: a reference script scores {best:.4f}, the best possible {task.metric}: {leaks.suspicion}")
        write_entry(spec, table, made, best, source, prepared.script_seconds)
        made.rename(folder)
    say(f"{spec.name}: {table.kind}, {len(table.cells)} rows, m_init {task.m_init:.4f}, m_best {best:.4f} ({source})")
    return folder


def read_table(spec: NewTaskSpec, say: Callable[[str], None]) -> tuple[UserTable, ColumnRoles]:
    """Return the user's table and the roles of its columns, and say what is read as something else or left out.

    Raises:
        ValueError: If the table cannot be read as it is stated, or has nothing to learn from.
    """
    table = read_user_table(
        spec.csv, spec.target, spec.metric, spec.id_column, spec.form, spec.group, spec.time, spec.test
    )
    try:
        roles = column_roles(table)
    except ValueError as error:
        raise ValueError(f"{spec.csv}: {error}") from None
    for note in (*table.notes, *roles.notes):
        say(note)
    return table, roles


def prepare_table(
    spec: NewTaskSpec, table: UserTable, roles: ColumnRoles, folder: Path, data: Path, python: Path
) -> Task:
    """Write the files of a task to `folder` and its data to `data`, and return the task; raises like `prepare_all`."""
    write_folder(spec, table, roles, folder)
    return prepared_task(read_entry(folder / "task.yaml"), data, python)


def reference(task: Task, python: Path, scripts: Iterable[str]) -> tuple[float, str, bool]:
    """Return the best hidden score of the reference scripts, a description of its origin, and whether a script has it.

    If no script beats the initial one, the score is the metric's optimum.
    """
    best, count = task.m_init, 0
    for source in scripts:
        try:
            score = run(task, source, python)[0]
        except ValueError:  # skip a script that fails or takes too long
            continue
        count += 1
        best = score if task.is_better(score, best) else best
    if best == task.m_init:
        return (
            OPTIMUM[task.direction],
            f"the metric's optimum; none of {count} reference scripts beat the first one",
            False,
        )
    return best, f"best hidden score of {count} reference scripts", True


def require_better(task: Task, best: float, leaks: Leaks) -> None:
    """Raise ValueError unless the best score is better than the initial one."""
    if not task.is_better(best, task.m_init) or abs(best - task.m_init) < 1e-6 * abs(task.m_init):
        if leaks.is_best_possible(task, task.m_init):
            raise ValueError(
                f"the initial script scores {task.m_init:.4f}, the best possible {task.metric}: {leaks.suspicion}"
            )
        raise ValueError(
            f"the best score, {best:.4f}, is no better than the initial script's {task.m_init:.4f} "
            f"({task.metric}, {task.direction}); pass a better achievable score with --best"
        )
