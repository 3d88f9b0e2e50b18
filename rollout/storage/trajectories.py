"""Trajectories on disk: Parquet files with a versioned schema, and journals of the same records as JSON lines."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from rollout.errors import CorruptRecord
from rollout.storage.atomic_write import replacing, sync_to_disk
from rollout.storage.journal import read_journal
from rollout.storage.run_layout import TRAJECTORIES
from rollout.types import Snapshot, Step, Trajectory
from tasks.feedback import Feedback, Outcome
from tasks.naming import Names

T = TypeVar("T")

SCHEMA_NAME = b"mlagent_jax.trajectory"
SCHEMA_VERSION = b"2"  # version of Parquet files and of the records in journals
REMEDY = "remove it and the record of its stage in stages/, and run the same command to make it again"
BATCH_SIZE = 64  # number of trajectories held as Python objects while a file is read

# Names and values as a list of pairs, because Hugging Face's `datasets` does not support maps.
_TEXTS = pa.list_(pa.struct([("name", pa.string()), ("value", pa.string())]))
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
        ("snapshots", pa.list_(_SNAPSHOT)),  # before the first step, and after each
        ("end", pa.string()),
    ],
    metadata={"schema": SCHEMA_NAME, "version": SCHEMA_VERSION},
)


def to_record(trajectory: Trajectory) -> dict[str, Any]:
    """Return the trajectory as JSON values in the form of `SCHEMA`; `from_record` is the inverse."""
    steps = trajectory.steps
    assert all(step.after == following.before for step, following in pairwise(steps)), "each step starts from the last"
    snapshots = [*(step.before for step in steps[:1]), *(step.after for step in steps)]
    return {
        "trajectory_id": trajectory.trajectory_id,
        "task": trajectory.task,
        "seed": trajectory.seed,
        "names": asdict(trajectory.names),
        "problem": trajectory.problem,
        "ideas": list(trajectory.ideas),
        "steps": [
            {
                "response": step.response,
                "action": step.action,
                "arguments": _pairs(step.arguments),
                "feedback": asdict(step.feedback),
                "seconds": step.seconds,
                "wording": step.wording,
            }
            for step in steps
        ],
        "snapshots": [{**vars(snapshot), "files": _pairs(snapshot.files)} for snapshot in snapshots],
        "end": trajectory.end,
    }


def from_record(record: Mapping[str, Any]) -> Trajectory:
    """Return the trajectory of a record.

    Raises:
        KeyError, TypeError, ValueError: If the record does not match the schema.
    """
    snapshots = [Snapshot(**{**each, "files": _texts(each["files"])}) for each in record["snapshots"]]
    steps = (
        Step(
            response=step["response"],
            action=step["action"],
            arguments=_texts(step["arguments"]),
            feedback=Feedback(**{**step["feedback"], "outcome": Outcome(step["feedback"]["outcome"])}),
            before=before,
            after=after,
            seconds=step["seconds"],
            wording=step["wording"],
        )
        for step, (before, after) in zip(record["steps"], pairwise(snapshots), strict=True)
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


def to_journal(trajectory: Trajectory) -> dict[str, Any]:
    """Return the record of a trajectory with the version of its schema, as one line of a journal."""
    return {"version": int(SCHEMA_VERSION), **to_record(trajectory)}


def write_trajectories(path: Path, trajectories: Iterable[Trajectory]) -> None:
    """Write trajectories as one Parquet file, whole or not at all."""
    write_records(path, [to_record(trajectory) for trajectory in trajectories])


def write_records(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write the records of `to_record` as one Parquet file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"compression": "zstd", "write_page_checksum": True}
    with replacing(path) as temporary, pq.ParquetWriter(temporary, SCHEMA, **options) as writer:
        for start in range(0, len(records), BATCH_SIZE):
            writer.write_batch(pa.RecordBatch.from_pylist(list(records[start : start + BATCH_SIZE]), schema=SCHEMA))
    sync_to_disk(path.parent)  # the journal that the file replaces may be removed after this


def read_trajectories(path: Path) -> list[Trajectory]:
    """Return the trajectories of one Parquet file, or of every part of a folder in the order of their names.

    Raises:
        FileNotFoundError: If there is nothing to read.
        CorruptRecord: If a file is damaged or has another schema. Names the file, and the line of a journal.
    """
    return list(iterate_trajectories(path))


def trajectories_of(path: Path) -> Path:
    """Return the folder of the expert's trajectories in a run directory; any other path is returned unchanged."""
    inside = path / TRAJECTORIES
    return inside if inside.is_dir() else path


def iterate_trajectories(path: Path) -> Iterator[Trajectory]:
    """Yield the trajectories of `read_trajectories` one by one, using little memory; raises the same errors."""
    if not path.is_dir():
        yield from _read(path, from_record)
        return
    for part in parts_of(path):
        yield from iterate_part(path, part)


def parts_of(folder: Path) -> list[str]:
    """Return the sorted names of a folder's parts, which are journals and the Parquet files made from them.

    Raises:
        FileNotFoundError: If there are none.
    """
    names = {file.stem for pattern in ("part-*.jsonl", "*.parquet") for file in folder.glob(pattern)}
    if not names:
        raise FileNotFoundError(f"no trajectories in {folder}; expected part-*.parquet files; run stage=collect first")
    return sorted(names)


def has_journal(folder: Path, name: str) -> bool:
    """Return whether a part is incomplete; only files named `part-*` have journals."""
    return name.startswith("part-") and (folder / f"{name}.jsonl").exists()


def iterate_part(folder: Path, name: str) -> Iterator[Trajectory]:
    """Yield each trajectory of a part once, even during its collection; raises like `read_trajectories`."""
    file, journal = folder / f"{name}.parquet", folder / f"{name}.jsonl"
    records = read_journal(journal) if has_journal(folder, name) else []  # before the file, which replaces it
    seen: set[str] = set()
    if file.exists():
        for trajectory in _read(file, from_record):
            seen.add(trajectory.trajectory_id)
            yield trajectory
    for number, record in enumerate(records, 1):
        if record.get("version") != int(SCHEMA_VERSION):
            got, expected = record.get("version", "no version"), int(SCHEMA_VERSION)
            raise CorruptRecord(f"{journal} line {number} has another schema: got {got}, expected {expected}; {REMEDY}")
        try:
            trajectory = from_record(record)
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptRecord(
                f"{journal} line {number} is not a trajectory; remove the line to run its episode again"
            ) from error
        if trajectory.trajectory_id not in seen:  # otherwise the file was made from this journal
            yield trajectory


def iterate_records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of one Parquet file; raises the same errors as `read_trajectories`."""
    return _read(path, dict)


def _read(path: Path, convert: Callable[[dict[str, Any]], T]) -> Iterator[T]:
    if not path.is_file():
        raise FileNotFoundError(f"no trajectory file {path}; run stage=collect first")
    try:
        # Arrow cannot open a name that is not UTF-8.
        with path.open("rb") as raw, pq.ParquetFile(raw, page_checksum_verification=True) as file:
            metadata = file.schema_arrow.metadata or {}
            schema = (metadata.get(b"schema"), metadata.get(b"version"))
            if schema != (SCHEMA_NAME, SCHEMA_VERSION):
                got = " ".join(part.decode("utf-8", "replace") for part in schema if part) or "no schema name"
                expected = f"{SCHEMA_NAME.decode()} {SCHEMA_VERSION.decode()}"
                raise CorruptRecord(f"{path} has another schema: got {got}, expected {expected}; {REMEDY}")
            for batch in file.iter_batches(BATCH_SIZE):
                yield from map(convert, batch.to_pylist())
    except CorruptRecord:
        raise
    except (pa.ArrowException, KeyError, TypeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CorruptRecord(f"{path} does not read as trajectories ({reason}); {REMEDY}") from error


def _pairs(texts: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in texts.items()]


def _texts(pairs: Iterable[Mapping[str, str]]) -> dict[str, str]:
    # Names and hashes recur in every state of a collection, so each is kept as one object.
    return {sys.intern(pair["name"]): sys.intern(pair["value"]) for pair in pairs}
