"""The journal of one update's actions: recorded actions are read from it, missing ones are executed and added."""

from collections.abc import Mapping, Sequence
from typing import Any

from rollout.errors import CorruptRecord
from rollout.sampling.experience import Experience, to_record
from rollout.sampling.state_pool import PoolState
from rollout.storage.journal import Journal

SCHEMA = 2  # 1: episodes and the policy's trajectories were marked in trajectory_id

Record = Mapping[str, Any]
Key = tuple[int, int, int]  # index of the start, number of the response to it, depth


class UpdateJournal:
    """The recorded actions of one update, each with the index of the state that its rollout started from.

    An action that was executed again has several records, of which the last one counts.
    """

    def __init__(self, journal: Journal | None, states: Sequence[PoolState], episodes: bool) -> None:
        """Read and check the records.

        Args:
            journal: The journal of this update alone; None if nothing is recorded.
            states: The states that the rollouts start from.
            episodes: Whether the rollouts are whole episodes.

        Raises:
            CorruptRecord: If the records have another schema or belong to other states.
        """
        self._journal = journal
        records = list(journal.records) if journal else []
        for record in records:
            self._check_schema(record)
        self._records: dict[Key, Record] = {}
        for record in records:
            self._check_state(record, states, episodes)
            experience = record["experience"]
            self._records[record["start"], experience["sample"], experience["depth"]] = experience

    def get(self, start: int, sample: int, depth: int) -> Record | None:
        """Return a recorded action, as `experience.from_record` reads it, or None."""
        return self._records.get((start, sample, depth))

    def add(self, *actions: tuple[int, Experience]) -> None:
        """Append actions, each with the index of the state that its rollout started from; on disk when this returns."""
        if self._journal and actions:
            self._journal.append(
                *({"schema": SCHEMA, "start": start, "experience": to_record(each)} for start, each in actions)
            )

    def _check_schema(self, record: Record) -> None:
        assert self._journal is not None, "records come from it"
        schema = record.get("schema", 1)
        if schema != SCHEMA:
            raise CorruptRecord(
                f"{self._journal.path} has records of schema {schema}, expected {SCHEMA}: another version of this "
                "program wrote it; remove it to roll the update out again, or start in another run directory"
            )

    def _check_state(self, record: Record, states: Sequence[PoolState], episodes: bool) -> None:
        """Raise CorruptRecord unless the action belongs to a rollout of its kind from one of the states."""
        assert self._journal is not None, "records come from it"
        experience = record["experience"]
        if record["start"] < len(states) and (experience["episode"] is not None) == episodes:
            state = states[record["start"]]
            depth = experience["depth"]
            is_reached = depth >= state.depth if episodes else depth == state.depth
            if experience["trajectory_id"] == state.trajectory_id and is_reached:
                return
        raise CorruptRecord(
            f"{self._journal.path} holds actions of other states; remove it to roll the update out again"
        )
