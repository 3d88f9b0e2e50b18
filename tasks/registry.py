"""The catalog: which tasks there are, and one that was prepared, loaded."""

import difflib
import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from tasks.metric import METRICS
from tasks.task import Limits, Task

CATALOG = Path(__file__).parent / "catalog"
PREPARE = "python -m tasks prepare"


@dataclass(frozen=True)
class Entry:
    """A task as `task.yaml` states it, before its data is there.

    Attributes:
        name: the folder's name.
        kind: the family of problem, such as `tabular-regression`.
        split: `train` tasks are learnt from, `heldout` tasks are only evaluated.
        metric: a name in `METRICS`.
        direction: `maximize` or `minimize`, as the metric's.
        m_best: the score taken as the best achievable.
        m_best_source: where it comes from.
        packages: the installed packages that the data comes from.
        data: what the data is and under which terms, for people.
        limits: what one script run may use, where it is not the default.
        noise: standard deviation of the hidden score over a script's random seeds (`benchmarks/noise.py`).
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=False)

    name: str
    kind: str
    split: Literal["train", "heldout"]
    metric: str
    direction: Literal["maximize", "minimize"]
    m_best: float
    m_best_source: str
    packages: tuple[str, ...]
    data: str
    limits: Limits = field(default_factory=Limits)
    noise: Annotated[float, Field(ge=0)] = 0.0

    @property
    def folder(self) -> Path:
        """Returns the task's folder in the catalog."""
        return CATALOG / self.name


@dataclass(frozen=True)
class Prepared:
    """What `task.json` says beside a task's data.

    Attributes:
        m_init: hidden-label score of the initial script, measured.
        validation_init: the score the initial script printed about itself.
        script_seconds: wall clock of that run.
        num_train: rows of the training data.
        num_test: rows of the test data.
        packages: version of each package that the data came from.
        catalog: `fingerprint` of the catalog's files that this was made by.
    """

    m_init: float
    validation_init: float
    script_seconds: float
    num_train: int
    num_test: int
    packages: dict[str, str]
    catalog: str


@cache
def entries() -> dict[str, Entry]:
    """Returns every task of the catalog by name, in order of name. Raises ValueError for a wrong `task.yaml`."""
    found = {file.parent.name: _entry(file) for file in sorted(CATALOG.glob("*/task.yaml"))}
    return found


def names(split: Literal["train", "heldout"] | None = None) -> tuple[str, ...]:
    """Returns the names of the tasks of a split, or of all."""
    return tuple(name for name, entry in entries().items() if split in (None, entry.split))


def entry(name: str) -> Entry:
    """Returns the catalog's entry `name`. Raises ValueError, naming the nearest, if there is none."""
    if name not in entries():
        raise ValueError(f"unknown task {name!r}{_nearest(name, entries())}; the catalog has {', '.join(entries())}")
    return entries()[name]


def load(name: str, data_dir: Path) -> Task:
    """Returns the task `name` with its data in `data_dir/name`.

    Raises:
        ValueError: if there is no such task, or its data is not there, damaged, or of another state of the catalog.
    """
    known = entry(name)
    folder = data_dir / name
    public, private = folder / "public", folder / "private"
    remedy = f"run {PREPARE} {name} --out {data_dir}"
    wanted = [folder / "task.json", public / "train.csv", public / "test.csv", private / "answers.csv"]
    missing = [file for file in wanted if not file.is_file()]
    if missing:
        raise ValueError(f"task {name} is not prepared: {missing[0]} is missing; {remedy}")
    prepared = read_prepared(folder)
    if prepared is None:
        raise ValueError(f"task {name}: {folder / 'task.json'} is damaged; {remedy}")
    if prepared.catalog != fingerprint(known):
        raise ValueError(f"task {name}: the data in {folder} is of another version of the catalog; {remedy}")
    return Task(
        name=name,
        kind=known.kind,
        split=known.split,
        metric=known.metric,
        direction=known.direction,
        m_init=prepared.m_init,
        validation_init=prepared.validation_init,
        m_best=known.m_best,
        m_best_source=known.m_best_source,
        problem=(known.folder / "problem.md").read_text(encoding="utf-8"),
        script=(known.folder / "train.py").read_text(encoding="utf-8"),
        public=public,
        private=private,
        limits=known.limits,
        noise=known.noise,
    )


def read_prepared(folder: Path) -> Prepared | None:
    """Returns what is known of the prepared task in `folder`, None if nothing is there or it cannot be read."""
    try:
        return TypeAdapter(Prepared).validate_python(json.loads((folder / "task.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return None


def fingerprint(known: Entry) -> str:
    """Returns a hash of the files of the catalog that decide the data and m_init."""
    digest = hashlib.sha256(known.metric.encode())
    for file in (CATALOG / "split.py", known.folder / "prepare.py", known.folder / "train.py"):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _entry(file: Path) -> Entry:
    try:
        found = TypeAdapter(Entry).validate_python(yaml.safe_load(file.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not YAML: {str(error).splitlines()[0]}") from None
    if found.name != file.parent.name:
        raise ValueError(f"{file}: the name is {found.name!r}, not that of its folder")
    if found.metric not in METRICS:
        raise ValueError(f"{file}: unknown metric {found.metric!r}{_nearest(found.metric, METRICS)}")
    if found.direction != METRICS[found.metric].direction:
        raise ValueError(
            f"{file}: direction is {found.direction}, but {found.metric} is one to {METRICS[found.metric].direction}"
        )
    return found


def _nearest(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f" (nearest: {near[0]})" if near else ""
