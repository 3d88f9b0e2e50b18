"""A task as its folder states it (`task.yaml`), and what `prepare` found out about it (`task.json`)."""

import hashlib
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from tasks.checksum import sha256_of
from tasks.metric import METRICS
from tasks.nearest import nearest
from tasks.task import Limits, Submission

SHARED = tuple(Path(__file__).parent / name for name in ("raw.py", "split.py"))  # what prepare scripts share


@dataclass(frozen=True)
class Download:
    """A file that `prepare` fetches.

    Attributes:
        url: where it is.
        file: what it is called among the raw files.
        sha256: of its content, in hex.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    url: str
    file: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class Medals:
    """Private leaderboard scores of the competition that a task comes from, for comparison."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    gold: float
    silver: float
    bronze: float
    median: float


@dataclass(frozen=True)
class PaperScores:
    """The paper's scores on the task, for comparison: they are of its own data and initial script.

    Attributes:
        m_init: score of its initial script.
        average: avg@8 of its 7B agent, None where it has no figure.
        best: best@8 of the same.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    m_init: float | None = None
    average: float | None = None
    best: float | None = None


@dataclass(frozen=True)
class Entry:
    """A task as `task.yaml` states it, before its data is there.

    Attributes:
        name: the folder's name.
        kind: the family of problem, such as `tabular-regression`.
        split: `held_in` tasks are learnt from, `held_out` tasks are only evaluated.
        metric: a name in `tasks.metric.METRICS`.
        direction: `maximize` or `minimize`, as the metric's.
        m_best: the score taken as the best achievable.
        m_best_source: where it comes from.
        data: what the data is and under which terms, for people.
        folder: where all this stands.
        packages: the installed packages that the data comes from.
        needs: modules that the initial script imports and the task environment of `make env` lacks, such as torch.
        kaggle: the Kaggle competition that the data comes from.
        downloads: the files that the data comes from.
        submission: what the columns of a submission are called.
        answers: the file among the private ones that submissions are held against.
        limits: what one script run may use, where it is not the default.
        deterministic: whether a script gives the same result each time, so that a recorded one may stand for it.
        noise: standard deviation of the hidden score over a script's random seeds; None: `prepare` measures it.
        medals: what scores won in the competition.
        paper: the paper's scores.
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
    limits: Limits = field(default_factory=Limits)
    deterministic: bool = True
    noise: Annotated[float, Field(ge=0)] | None = None
    medals: Medals | None = None
    paper: PaperScores | None = None

    def fingerprint(self) -> str:
        """Return a hash of what the task's folder says that decides the data and its initial score."""
        stated = (self.metric, self.submission, self.answers, self.packages, self.kaggle, self.downloads)
        return _hash(repr(stated), *SHARED, *(self.folder / name for name in ("prepare.py", "train.py", "grade.py")))

    def identity(self) -> str:
        """Return a hash of what the task's folder says that decides what an agent experiences and is rewarded for."""
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
    """Return the SHA-256 of a file as it was at a time."""
    return sha256_of(file)


@dataclass(frozen=True)
class Prepared:
    """What `task.json` says beside a task's data.

    Attributes:
        m_init: hidden-label score of the initial script, measured.
        validation_init: the score the initial script printed about itself.
        noise: standard deviation of the hidden score over random seeds, measured or stated.
        script_seconds: wall clock of the initial script.
        sources: what the data came from: each package's version, each raw file's size and SHA-256.
        checksum: `rollout.task_tools.preparation.checksum` of the data.
        fingerprint: `Entry.fingerprint` of the folder that this was made by.
    """

    m_init: float
    validation_init: float
    noise: float
    script_seconds: float
    sources: dict[str, str]
    checksum: str
    fingerprint: str


def read_entry(file: Path) -> Entry:
    """Return what a `task.yaml` states. Raises ValueError, with the file and what is wrong in it."""
    try:
        stated = yaml.safe_load(file.read_text(encoding="utf-8"))
        if not isinstance(stated, dict):
            raise ValueError(f"{file} is no mapping of keys to values")
        found = TypeAdapter(Entry).validate_python({**stated, "folder": file.parent})
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not YAML: {str(error).splitlines()[0]}") from None
    if found.name != file.parent.name:
        raise ValueError(f"{file}: the name is {found.name!r}, not that of its folder")
    if (file.parent / "grade.py").is_file():
        return found
    if found.metric not in METRICS:
        raise ValueError(
            f"{file}: unknown metric {found.metric!r}{nearest(found.metric, METRICS)}; the library has "
            f"{', '.join(METRICS)}; for another one write a grade.py beside it"
        )
    if found.direction != METRICS[found.metric].direction:
        raise ValueError(
            f"{file}: direction is {found.direction}, but {found.metric} is one to {METRICS[found.metric].direction}"
        )
    return found


def read_prepared(folder: Path) -> Prepared | None:
    """Return what is known of the prepared task in `folder`, None if nothing is there or it cannot be read."""
    try:
        return TypeAdapter(Prepared).validate_python(json.loads((folder / "task.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return None
