"""Write the folder of a task made from a user's table."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from rollout.task_tools.from_table.column_roles import ColumnRoles
from rollout.task_tools.from_table.raw_table import TableFormat
from rollout.task_tools.from_table.split_seed import seed_of_split
from rollout.task_tools.from_table.templates import PREPARE, problem_text, train_script
from rollout.task_tools.from_table.user_table import UserTable
from tasks.metric import METRICS
from tasks.text_table import write_table

TEST_SHARE = 0.3
TIME_FACTOR = 10  # time limit of an agent's scripts, relative to the initial script's time
MIN_SECONDS = 20.0


@dataclass(frozen=True)
class NewTaskSpec:
    """The user's specification of a new task.

    Attributes:
        name: The name of the task and its folder.
        csv: The file of the table.
        target: The column to predict.
        metric: A name in `tasks.metric.METRICS`, None to guess it from the target.
        out: The folder in which the task's folder is created.
        id_column: A column that only numbers the rows, None if there is none.
        test_share: The share of the rows that are reserved for the hidden score, None for `TEST_SHARE`.
        split: `held_in` to train on the task, `held_out` to only evaluate on it.
        best: The score taken as the best achievable; if None, the best score of the reference scripts.
        group: A column whose rows with the same value stay on one side of the split, None if there is none.
        form: The properties of the file that the user states.
        time: A column of times, by which the latest rows are the test rows, None for a random split.
        test: A file with the rows that are reserved for the hidden score, None to draw them from the table.
    """

    name: str
    csv: Path
    target: str
    metric: str | None
    out: Path
    id_column: str | None = None
    test_share: float | None = None
    split: str = "held_in"
    best: float | None = None
    group: str | None = None
    form: TableFormat = field(default_factory=TableFormat)
    time: str | None = None
    test: Path | None = None


def write_folder(spec: NewTaskSpec, table: UserTable, roles: ColumnRoles, folder: Path) -> None:
    """Write the task's files, with a placeholder for the best score."""
    rows = table.cells
    share = TEST_SHARE if spec.test_share is None else spec.test_share
    num_test = table.num_test or max(1, round(len(rows) * share))
    num_train = len(rows) - num_test
    (folder / "raw").mkdir(parents=True)
    write_table(rows, folder / "raw/data.csv")
    try:
        seed = seed_of_split(table, num_train)
    except ValueError as error:
        raise ValueError(f"{spec.csv}: {error}") from None
    sides = {"group": table.group, "time": table.time, "test_is_last": table.num_test > 0}
    stated = "".join(f", {side}={value!r}" for side, value in sides.items() if value)
    prepare = PREPARE.format(num_train=num_train, num_test=num_test, seed=seed, sides=stated)
    (folder / "prepare.py").write_text(prepare, encoding="utf-8")
    (folder / "train.py").write_text(train_script(table, roles), encoding="utf-8")
    (folder / "problem.md").write_text(problem_text(table, spec.target), encoding="utf-8")
    write_entry(spec, table, folder, 0.0, "", MIN_SECONDS / TIME_FACTOR)


def write_entry(spec: NewTaskSpec, table: UserTable, folder: Path, best: float, source: str, seconds: float) -> None:
    """Write `task.yaml`, with a time limit that depends on the initial script's `seconds`."""
    stated = {
        "name": spec.name,
        "kind": table.kind,
        "split": spec.split,
        "metric": table.metric,
        "direction": METRICS[table.metric].direction,
        "m_best": best,
        "m_best_source": source,
        "data": f"{' and '.join(file.name for file in (spec.csv, spec.test) if file)}, made by python -m tasks new",
        "limits": {"seconds": max(MIN_SECONDS, math.ceil(TIME_FACTOR * seconds))},
        **({"group": table.group} if table.group else {}),
    }
    (folder / "task.yaml").write_text(yaml.safe_dump(stated, sort_keys=False, allow_unicode=True), encoding="utf-8")
