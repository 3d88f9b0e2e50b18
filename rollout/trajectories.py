"""Trajectories on disk: Parquet with a versioned schema, and the same records as JSON for the journal."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rollout.errors import CorruptRecord
from rollout.types import Snapshot, Step, Trajectory
from tasks.feedback import Feedback, Outcome
from tasks.naming import Names

SCHEMA_NAME = b"mlagent_jax.trajectory"
SCHEMA_VERSION = b"1"

_TEXTS = pa.map_(pa.string(), pa.string())
_SNAPSHOT = pa.struct(
    [
        ("files", _TEXTS),
        ("metric", pa.float64()),
        ("last_submission", pa.float64()),
        ("best_script", pa.string()),
        ("best_score", pa.float64()),
    ]
)
_FEEDBACK = pa.struct(
    [("outcome", pa.string()), ("text", pa.string()), ("metric", pa.float64()), ("validation", pa.float64())]
)
_STEP = pa.struct(
    [
        ("response", pa.string()),
        ("action", pa.string()),
        ("arguments", _TEXTS),
        ("feedback", _FEEDBACK),
        ("before", _SNAPSHOT),
        ("after", _SNAPSHOT),
        ("seconds", pa.float64()),
        ("wording", pa.string()),
    ]
)
_NAMES = pa.struct([(name, pa.string()) for name in ("project", "train_file", "test_file", "script")])
SCHEMA = pa.schema(
    [
        ("trajectory_id", pa.string()),
        ("task", pa.string()),
        ("seed", pa.int64()),
        ("names", _NAMES),
        ("problem", pa.string()),
        ("ideas", pa.list_(pa.string())),
        ("steps", pa.list_(_STEP)),
        ("end", pa.string()),
    ],
    metadata={"schema": SCHEMA_NAME, "version": SCHEMA_VERSION},
)


def to_record(trajectory: Trajectory) -> dict[str, Any]:
    """Returns the trajectory as plain JSON values; `from_record` is the inverse."""
    return asdict(trajectory)


def from_record(record: Mapping[str, Any]) -> Trajectory:
    """Returns the trajectory of a record.

    Raises:
        KeyError, TypeError, ValueError: where the record is not of this schema.
    """
    steps = (
        Step(
            response=step["response"],
            action=step["action"],
            arguments=dict(step["arguments"]),
            feedback=Feedback(**{**step["feedback"], "outcome": Outcome(step["feedback"]["outcome"])}),
            before=_snapshot(step["before"]),
            after=_snapshot(step["after"]),
            seconds=step["seconds"],
            wording=step["wording"],
        )
        for step in record["steps"]
    )
    return Trajectory(
        trajectory_id=record["trajectory_id"],
        task=record["task"],
        seed=record["seed"],
        names=Names(**record["names"]),
        problem=record["problem"],
        ideas=tuple(record["ideas"]),
        steps=tuple(steps),
        end=record["end"],
    )


def write_trajectories(path: Path, trajectories: Sequence[Trajectory]) -> None:
    """Writes one Parquet file; it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([to_record(trajectory) for trajectory in trajectories], schema=SCHEMA)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        pq.write_table(table, aside, compression="zstd")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def read_trajectories(path: Path) -> list[Trajectory]:
    """Returns the trajectories of one Parquet file, or of every `*.parquet` of a folder in the order of their names.

    Raises:
        FileNotFoundError: where there is nothing to read.
        CorruptRecord: naming the file that is damaged or has another schema.
    """
    if not path.is_dir():
        return _read_file(path)
    files = sorted(path.glob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"no trajectories in {path}; expected *.parquet files; run stage=collect first")
    return [trajectory for file in files for trajectory in _read_file(file)]


def _read_file(path: Path) -> list[Trajectory]:
    if not path.is_file():
        raise FileNotFoundError(f"no trajectory file {path}; run stage=collect first")
    remedy = "remove it and run stage=collect again"
    try:
        metadata = pq.read_schema(path).metadata or {}
        found = (metadata.get(b"schema"), metadata.get(b"version"))
        if found != (SCHEMA_NAME, SCHEMA_VERSION):
            got = " ".join(part.decode("utf-8", "replace") for part in found if part) or "no schema name"
            expected = f"{SCHEMA_NAME.decode()} {SCHEMA_VERSION.decode()}"
            raise CorruptRecord(f"{path} has another schema: got {got}, expected {expected}; {remedy}")
        rows = pq.read_table(path).to_pylist(maps_as_pydicts="strict")
        return [from_record(row) for row in rows]
    except CorruptRecord:
        raise
    except (pa.ArrowException, KeyError, TypeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CorruptRecord(f"{path} does not read as trajectories ({reason}); {remedy}") from error


def _snapshot(record: Mapping[str, Any]) -> Snapshot:
    return Snapshot(**{**record, "files": dict(record["files"])})
