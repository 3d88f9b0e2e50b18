"""Create a task folder from a user's table; the user may edit its files and train on it."""

import math
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml

from rollout.task_tools.from_table.column_roles import ColumnRoles, column_roles
from rollout.task_tools.from_table.leak_warnings import Leaks, find_leaks
from rollout.task_tools.from_table.raw_table import TableFormat
from rollout.task_tools.from_table.templates import PREPARE, problem_text, train_script
from rollout.task_tools.from_table.user_table import UserTable, read_user_table
from rollout.task_tools.preparation import prepare_all
from rollout.task_tools.preparation.initial_score import run
from tasks.entry import read_entry, read_prepared
from tasks.metric import METRICS, OPTIMUM
from tasks.registry import entries, load_entry
from tasks.split import by_group, by_time, shuffled, time_of
from tasks.task import Task
from tasks.text_table import write_table

NAME = re.compile(r"[a-z][a-z0-9_]*")
MAX_SEEDS = 50
TIME_FACTOR = 10  # time limit of an agent's scripts, relative to the initial script's time
MIN_SECONDS = 20.0


# Yields scripts to try from the initial script of a task.
MakeReferences = Callable[[str], Iterable[str]]


@dataclass(frozen=True)
class NewTaskSpec:
    """The user's specification of a new task.

    Attributes:
        name: The name of the task and its folder.
        csv: The file of the table.
        target: The column to predict.
        metric: A name in `tasks.metric.METRICS`.
        out: The folder in which the task's folder is created.
        id_column: A column that only numbers the rows, None if there is none.
        test_share: The share of the rows that are reserved for the hidden score.
        split: `held_in` to train on the task, `held_out` to only evaluate on it.
        best: The score taken as the best achievable; if None, the best score of the reference scripts.
        group: A column whose rows with the same value stay on one side of the split, None if there is none.
        form: The properties of the file that the user states.
        time: A column of times, by which the latest rows are the test rows, None for a random split.
    """

    name: str
    csv: Path
    target: str
    metric: str
    out: Path
    id_column: str | None = None
    test_share: float = 0.3
    split: str = "held_in"
    best: float | None = None
    group: str | None = None
    form: TableFormat = field(default_factory=TableFormat)
    time: str | None = None


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
    if not 0 < spec.test_share < 1:
        raise ValueError(f"test_share={spec.test_share}, expected a share between 0 and 1, such as 0.3")
    table, roles = read_table(spec, say)
    spec.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=spec.out, prefix=".new-") as temporary:
        made, data = Path(temporary) / spec.name, Path(temporary) / "data"
        task = prepare_table(spec, table, roles, made, data, python)
        leaks = find_leaks(task, roles)
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
            say(f"warning: a reference script scores {best:.4f}, the best possible {spec.metric}: {leaks.suspicion}")
        write_entry(spec, table, made, best, source, prepared.script_seconds)
        made.rename(folder)
    say(f"{spec.name}: {table.kind}, {len(table.cells)} rows, m_init {task.m_init:.4f}, m_best {best:.4f} ({source})")
    return folder


def read_table(spec: NewTaskSpec, say: Callable[[str], None]) -> tuple[UserTable, ColumnRoles]:
    """Return the user's table and the roles of its columns, and say what is read as something else or left out.

    Raises:
        ValueError: If the table cannot be read as it is stated, or has nothing to learn from.
    """
    table = read_user_table(spec.csv, spec.target, spec.metric, spec.id_column, spec.form, spec.group, spec.time)
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
    entry = read_entry(folder / "task.yaml")
    prepare_all([entry], data, python, say=lambda _: None)
    return load_entry(entry, data)


def write_folder(spec: NewTaskSpec, table: UserTable, roles: ColumnRoles, folder: Path) -> None:
    """Write the task's files, with a placeholder for the best score."""
    rows = table.cells
    num_test = max(1, round(len(rows) * spec.test_share))
    (folder / "raw").mkdir(parents=True)
    write_table(rows, folder / "raw/data.csv")
    num_train = len(rows) - num_test
    groups, times = (rows[name].tolist() if name else [] for name in (table.group, table.time))
    try:
        seed = seed_of_split(rows["target"].tolist(), num_train, bool(table.classes), groups, times)
    except ValueError as error:
        raise ValueError(f"{spec.csv}: {error}") from None
    sides = {"group": table.group, "time": table.time}
    stated = "".join(f", {side}={name!r}" for side, name in sides.items() if name)
    prepare = PREPARE.format(num_train=num_train, num_test=num_test, seed=seed, sides=stated)
    (folder / "prepare.py").write_text(prepare, encoding="utf-8")
    (folder / "train.py").write_text(train_script(table, roles, spec.metric), encoding="utf-8")
    (folder / "problem.md").write_text(problem_text(table, spec.target, spec.metric), encoding="utf-8")
    write_entry(spec, table, folder, 0.0, "", MIN_SECONDS / TIME_FACTOR)


def seed_of_split(
    labels: list[str], num_train: int, must_have_all: bool, groups: Sequence[str] = (), times: Sequence[str] = ()
) -> int:
    """Return the first seed of `tasks.split.write_split` that puts every class into training and test data.

    Args:
        labels: The label of each row.
        num_train: The number of training rows.
        must_have_all: Whether the labels are classes; otherwise the first seed is returned.
        groups: The group of each row, which no split divides; empty if there are no groups.
        times: The time of each row, by which the training rows come first; empty for a random split.

    Raises:
        ValueError: If no seed does.
    """
    for seed in range(MAX_SEEDS):
        order, first_test = shuffled(len(labels), seed), num_train
        if groups:
            order, first_test = by_group(groups, order, num_train)
        if times:
            order, first_test = by_time(times, order, num_train)
        parts = [order[:first_test], order[first_test:]]
        if times:  # the initial script fits on the earlier three quarters
            earlier = sorted(order[:first_test].tolist(), key=lambda row: time_of(str(times[row])))
            parts.append(np.array(earlier[: 3 * len(earlier) // 4]))
        if len({frozenset(labels[row] for row in part) for part in parts}) == 1 or not must_have_all:
            return seed
    where = "too rare for both training and test data"
    if groups or times:
        where = "in too few groups to be on both sides" if groups else "not in early and late rows alike"
    raise ValueError(f"the rarest class is {where}; leave its rows out")


def write_entry(spec: NewTaskSpec, table: UserTable, folder: Path, best: float, source: str, seconds: float) -> None:
    """Write `task.yaml`, with a time limit that depends on the initial script's `seconds`."""
    stated = {
        "name": spec.name,
        "kind": table.kind,
        "split": spec.split,
        "metric": spec.metric,
        "direction": METRICS[spec.metric].direction,
        "m_best": best,
        "m_best_source": source,
        "data": f"{spec.csv.name}, made by python -m tasks new",
        "limits": {"seconds": max(MIN_SECONDS, math.ceil(TIME_FACTOR * seconds))},
        **({"group": table.group} if table.group else {}),
    }
    (folder / "task.yaml").write_text(yaml.safe_dump(stated, sort_keys=False, allow_unicode=True), encoding="utf-8")


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
