"""The files of a collection, each a journal while its trajectories arrive and then a Parquet file."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rollout.storage.journal import Journal
from rollout.storage.trajectories import iterate_part, iterate_records, to_journal, write_records
from rollout.types import Trajectory

PART_SIZE = 256  # trajectories in one Parquet file


class Part:
    """Consecutive trajectories of a collection; a context manager that closes the journal.

    Attributes:
        path: The Parquet file, which exists once every trajectory is either done or lost.
        journal_path: The journal, which exists until then.
    """

    def __init__(self, folder: Path, number: int, ids: Sequence[str]) -> None:
        """Set the paths and ids of a part, without opening a file.

        Args:
            folder: The folder of the collection.
            number: The part's number in the collection.
            ids: The ids of its trajectories, in order.
        """
        self.path, self.journal_path = folder / f"part-{number:05d}.parquet", folder / f"part-{number:05d}.jsonl"
        self._ids = ids
        self._journal: Journal | None = None

    def recorded(self) -> Iterator[Trajectory]:
        """Yield each trajectory on disk once, using little memory.

        Raises:
            CorruptRecord: If a file is damaged or of another version. Names the line of a journal.
        """
        return iterate_part(self.path.parent, self.path.stem)

    def add(self, trajectory: Trajectory) -> None:
        """Append a trajectory to the journal; it is on disk when this returns."""
        self._open().append(to_journal(trajectory))

    def store(self) -> None:
        """Turn the journal, if there is one, into Parquet; a crash in between leaves both files, which read as one."""
        if not self.journal_path.exists():
            return
        records: dict[str, Any] = {record["trajectory_id"]: record for record in self._open().records}
        if self.path.exists():
            records |= {record["trajectory_id"]: record for record in iterate_records(self.path)}
        write_records(self.path, [records[name] for name in self._ids if name in records])
        self.close()
        self.journal_path.unlink()

    def close(self) -> None:
        """Close the journal and release its records."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _open(self) -> Journal:
        if self._journal is None:
            self._journal = Journal(self.journal_path)
        return self._journal

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
