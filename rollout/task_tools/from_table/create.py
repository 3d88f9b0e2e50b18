"""A task made of a user's own table: a folder that a run takes by `tasks.paths`, to be edited at will."""

import math
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from rollout.scripted.recipes import Cannot, apply
from rollout.task_tools.from_table.templates import PREPARE, problem_text, train_script
from rollout.task_tools.from_table.user_table import UserTable, read_user_table
from rollout.task_tools.preparation import prepare_all
from rollout.task_tools.preparation.initial_score import run
from tasks.entry import read_entry, read_prepared
from tasks.metric import METRICS, OPTIMUM
from tasks.registry import entries, load_entry
from tasks.split import shuffled
from tasks.task import Task

NAME = re.compile(r"[a-z][a-z0-9_]*")
MAX_SEEDS = 50
# What an engineer would try first, as recipes of the offline coder; those that do not fit a script are left out of it.
REFERENCES = (
    ("one_hot", "median_impute", "linear_model"),
    ("one_hot", "random_forest", "more_trees"),
    ("one_hot", "gradient_boosting", "more_trees"),
    ("one_hot", "log_target", "gradient_boosting"),
    ("larger_vocabulary", "tfidf", "linear_model", "weaker_regularisation"),
    ("larger_vocabulary", "naive_bayes"),
    ("larger_vocabulary", "bigrams", "linear_model"),
)
TIMES = 10  # what an agent's scripts may take of the initial one's time
MIN_SECONDS = 20.0


@dataclass(frozen=True)
class NewTaskSpec:
    """What a user says of a task.

    Attributes:
        name: of the task and its folder.
        csv: the table.
        target: the column to be predicted.
        metric: how a prediction is scored.
        out: the folder that the task's own is made in.
        id_column: a column that names the rows and says nothing.
        test_share: share of the rows that are kept for the hidden score.
        split: whether the task is learnt from (`held_in`) or only evaluated (`held_out`).
        best: the score taken as the best achievable; None: of reference scripts, the best one's.
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


def make_task(wish: NewTaskSpec, python: Path, say: Callable[[str], None] = print) -> Path:
    """Return the folder of a new task, its scripts tried out.

    Raises ValueError, with what to do, where no task can be made of the table; nothing is left then.
    """
    folder = wish.out / wish.name
    if not NAME.fullmatch(wish.name):
        raise ValueError(f"a task's name is of small letters, digits and underscores, got {wish.name!r}")
    if wish.name in entries() or folder.exists():
        raise ValueError(f"there is a task {wish.name} already; take another name, or remove {folder}")
    if not 0 < wish.test_share < 1:
        raise ValueError(f"test_share={wish.test_share}, expected a share between 0 and 1, such as 0.3")
    table = read_user_table(wish.csv, wish.target, wish.metric, wish.id_column)
    wish.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=wish.out, prefix=".new-") as aside:
        made = Path(aside) / wish.name
        write_folder(wish, table, made)
        data = Path(aside) / "data"
        entry = read_entry(made / "task.yaml")
        prepare_all([entry], data, python, say=lambda _: None)
        task = load_entry(entry, data)
        prepared = read_prepared(data / wish.name)
        assert prepared is not None, "just written"
        best, source = (wish.best, "stated by the user") if wish.best is not None else reference(task, python)
        require_room(task, best)
        write_entry(wish, table, made, best, source, prepared.script_seconds)
        made.rename(folder)
    if table.num_without_target:
        say(f"{table.num_without_target} rows without a {wish.target} are left out")
    say(f"{wish.name}: {table.kind}, {len(table.rows)} rows, m_init {task.m_init:.4f}, m_best {best:.4f} ({source})")
    return folder


def write_folder(wish: NewTaskSpec, table: UserTable, folder: Path) -> None:
    """Write the task's files, its best score still to be found out."""
    rows = table.rows.drop_duplicates()
    num_test = max(1, round(len(rows) * wish.test_share))
    (folder / "raw").mkdir(parents=True)
    rows.to_csv(folder / "raw/data.csv", index=False)
    seed = seed_of_split(rows["target"].astype(str).tolist(), len(rows) - num_test, bool(table.classes))
    prepare = PREPARE.format(num_train=len(rows) - num_test, num_test=num_test, seed=seed)
    (folder / "prepare.py").write_text(prepare, encoding="utf-8")
    (folder / "train.py").write_text(train_script(table, wish.metric), encoding="utf-8")
    (folder / "problem.md").write_text(problem_text(table, wish.target, wish.metric), encoding="utf-8")
    write_entry(wish, table, folder, 0.0, "", MIN_SECONDS / TIMES)


def seed_of_split(labels: list[str], num_train: int, must_have_all: bool) -> int:
    """Return the first seed of `tasks.split.write_split` by which every class is on both sides.

    Raises ValueError if none does it.
    """
    for seed in range(MAX_SEEDS):
        order = shuffled(len(labels), seed)
        train, test = ({labels[i] for i in part} for part in (order[:num_train], order[num_train:]))
        if train == test or not must_have_all:
            return seed
    raise ValueError("the rarest class is too rare to be in training and test data both; leave its rows out")


def write_entry(wish: NewTaskSpec, table: UserTable, folder: Path, best: float, source: str, seconds: float) -> None:
    """Write `task.yaml`."""
    stated = {
        "name": wish.name,
        "kind": table.kind,
        "split": wish.split,
        "metric": wish.metric,
        "direction": METRICS[wish.metric].direction,
        "m_best": best,
        "m_best_source": source,
        "data": f"{wish.csv.name}, made by python -m tasks new",
        "limits": {"seconds": max(MIN_SECONDS, math.ceil(TIMES * seconds))},
    }
    (folder / "task.yaml").write_text(yaml.safe_dump(stated, sort_keys=False, allow_unicode=True), encoding="utf-8")


def reference_scripts(script: str) -> Iterator[str]:
    """Yield what the reference recipes make of a script."""
    seen = {script}
    for recipes in REFERENCES:
        source = script
        for recipe in recipes:
            try:
                source = apply(source, [recipe])
            except Cannot:
                continue
        if source not in seen:
            seen.add(source)
            yield source


def reference(task: Task, python: Path) -> tuple[float, str]:
    """Return the best hidden score of the reference scripts, and what it is in words."""
    best, count = task.m_init, 0
    for source in reference_scripts(task.script):
        try:
            found = run(task, source, python)[0]
        except ValueError:  # a script that fails or takes too long is no reference
            continue
        count += 1
        best = found if task.is_better(found, best) else best
    if best == task.m_init:
        return OPTIMUM[task.direction], f"the metric's optimum; none of {count} reference scripts beat the first one"
    return best, f"best hidden score of {count} reference scripts"


def require_room(task: Task, best: float) -> None:
    """Raise ValueError where there is no way from the initial score to the best one."""
    if not task.is_better(best, task.m_init) or abs(best - task.m_init) < 1e-6 * abs(task.m_init):
        raise ValueError(
            f"the best score, {best:.4f}, is no better than the initial script's {task.m_init:.4f} "
            f"({task.metric}, {task.direction}); state one that can be reached by --best"
        )
