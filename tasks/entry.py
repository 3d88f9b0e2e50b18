"""Read a task's description (`task.yaml`) and the measurements of its preparation (`task.json`)."""

import hashlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from tasks.checksum import read_sealed, sha256_of
from tasks.metric import METRICS
from tasks.nearest import nearest
from tasks.task import Limits, Submission

# Code that prepare scripts import.
SHARED = tuple(Path(__file__).parent / name for name in ("raw.py", "split.py", "text_table.py"))


@dataclass(frozen=True)
class Download:
    """A file that `prepare` downloads.

    Attributes:
        url: The address.
        file: The file's name among the raw files.
        sha256: The SHA-256 of the content, in hex.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    url: str
    file: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class Medals:
    """Scores on the private leaderboard of the task's competition, for comparison."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    gold: float
    silver: float
    bronze: float
    median: float


@dataclass(frozen=True)
class PaperScores:
    """The paper's scores on the task, for comparison; they come from its own data and initial script.

    Attributes:
        m_init: The score of the paper's initial script.
        average: The avg@8 of the paper's 7B agent, None if the paper gives no figure.
        best: The best@8 of the same agent.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    m_init: float | None = None
    average: float | None = None
    best: float | None = None


@dataclass(frozen=True)
class Entry:
    """A task as described by its `task.yaml`, independent of its data.

    Attributes:
        name: The folder's name.
        kind: The family of problem, such as `tabular-regression`.
        split: `held_in` for tasks that are trained on, `held_out` for tasks that are only evaluated.
        metric: A name in `tasks.metric.METRICS`, or any name if the folder has a `grade.py`.
        direction: `maximize` or `minimize`; must be the metric's direction.
        m_best: The score taken as the best achievable.
        m_best_source: The origin of `m_best`, for people.
        data: The origin and license of the data, for people.
        folder: The folder that contains `task.yaml`.
        packages: The installed packages that the data comes from.
        needs: Modules that the initial script imports and the task environment of `make env` lacks, such as torch.
        kaggle: The Kaggle competition that the data comes from.
        downloads: The files that the data comes from.
        submission: The columns of a submission.
        answers: The private file that submissions are graded against.
        group: The column whose rows with the same value are all training rows or all test rows, `` if there is none.
        limits: The limits of one script run.
        deterministic: Whether a script always gives the same result, so that a cached result may replace a run.
        noise: The standard deviation of the hidden score over random seeds; if None, `prepare` measures it.
        medals: The competition's medal scores.
        paper: The paper's scores.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=False)

    name: str
    kind: str
    split: Literal["held_in", "held_out"]
    metric: str
    direction: Literal["maximize", "minimize"]
    m_best: Annotated[float, Field(allow_inf_nan=False)]
    m_best_source: str
    data: str
    folder: Path
    packages: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    kaggle: str | None = None
    downloads: tuple[Download, ...] = ()
    submission: Submission = field(default_factory=Submission)
    answers: str = "answers.csv"
    group: str = ""
    limits: Limits = field(default_factory=Limits)
    deterministic: bool = True
    noise: Annotated[float, Field(ge=0)] | None = None
    medals: Medals | None = None
    paper: PaperScores | None = None

    def fingerprint(self) -> str:
        """Return a hash of everything in the task's folder that determines the data and the initial score."""
        stated = (self.metric, self.submission, self.answers, self.packages, self.kaggle, self.downloads)
        return _hash(repr(stated), *SHARED, *(self.folder / name for name in ("prepare.py", "train.py", "grade.py")))

    def identity(self) -> str:
        """Return a hash of everything in the task's folder that determines an agent's experience and rewards."""
        stated = (self.kind, self.direction, self.m_best, self.limits, self.deterministic, self.noise)
        own = sorted(path for path in (self.folder / "raw").rglob("*") if path.is_file())
        return _hash(repr((*stated, self.fingerprint())), self.folder / "problem.md", *own)


def _hash(stated: str, *files: Path) -> str:
    digest = hashlib.sha256(stated.encode())
    for file in files:
        known = _sha256(file, file.stat().st_mtime_ns, file.stat().st_size) if file.is_file() else "none"
        digest.update(known.encode())
    return digest.hexdigest()[:16]


@cache
def _sha256(file: Path, modified: int, size: int) -> str:
    """Return the SHA-256 of a file; `modified` and `size` invalidate the cache when the file changes."""
    return sha256_of(file)


@dataclass(frozen=True)
class Prepared:
    """The content of `task.json`, which is stored next to a task's data.

    Attributes:
        m_init: The measured hidden score of the initial script.
        validation_init: The validation score that the initial script printed.
        noise: The standard deviation of the hidden score over random seeds, measured or stated.
        script_seconds: The wall-clock time of the initial script.
        sources: The origin of the data: each package's version, and a hash of the raw files.
        checksum: The `rollout.task_tools.preparation.sources.checksum` of the data.
        fingerprint: The `Entry.fingerprint` of the folder that the data was made from.
    """

    m_init: float
    validation_init: float
    noise: float
    script_seconds: float
    sources: dict[str, str]
    checksum: str
    fingerprint: str


def read_entry(file: Path) -> Entry:
    """Return the entry in a `task.yaml`. Raises ValueError, naming the file and the fault."""
    try:
        stated = yaml.safe_load(file.read_text(encoding="utf-8"))
        if not isinstance(stated, dict):
            raise ValueError(f"{file} is not a mapping of keys to values")
        found = TypeAdapter(Entry).validate_python({**stated, "folder": file.parent})
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not YAML: {str(error).splitlines()[0]}") from None
    if found.name != file.parent.name:
        raise ValueError(f"{file}: name is {found.name!r}; expected the folder's name, {file.parent.name!r}")
    if (file.parent / "grade.py").is_file():
        return found
    if found.metric not in METRICS:
        raise ValueError(
            f"{file}: unknown metric {found.metric!r}{nearest(found.metric, METRICS)}; expected one of "
            f"{', '.join(METRICS)}; for any other metric, add a grade.py to the folder"
        )
    if found.direction != METRICS[found.metric].direction:
        raise ValueError(
            f"{file}: direction is {found.direction}; expected {METRICS[found.metric].direction} for {found.metric}"
        )
    return found


def read_prepared(folder: Path) -> Prepared | None:
    """Return the `task.json` in `folder`, None if it is missing or damaged."""
    try:
        return TypeAdapter(Prepared).validate_python(read_sealed(folder / "task.json"))
    except (FileNotFoundError, ValueError):
        return None
