"""The actions of one update as its journal has them: what is done is taken from there, what is missing is done."""

from collections.abc import Mapping
from typing import Any

from rollout.errors import CorruptRecord
from rollout.sampling.experience import Experience, to_record
from rollout.sampling.state_pool import PoolState
from rollout.storage.journal import Journal

Record = Mapping[str, Any]


class UpdateJournal:
    """The records of one update's actions, each with the index of the state that it began from.

    Where nothing is known of any, whatever was wrong then, all are forgotten, and so done again.
    """

    def __init__(self, journal: Journal | None) -> None:
        """Take a journal of this update alone, None where nothing is kept."""
        self._journal = journal
        self.records: list[Record] = list(journal.records) if journal else []
        # an episode that lost one of its actions is not known either
        lost = {_turn(record) for record in self.records if record["experience"]["reward"] is None}
        if journal and lost == {_turn(record) for record in self.records}:
            journal.forget()
            self.records = []

    def add(self, *found: tuple[int, Experience]) -> None:
        """Keep actions, each with the index of its state; on disk when this returns."""
        if self._journal and found:
            self._journal.append(*({"state": index, "experience": to_record(each)} for index, each in found))

    def check(self, experience: Record, state: PoolState | None) -> None:
        """Raise CorruptRecord unless a recorded action was done in `state`, and there is one."""
        if state and (experience["trajectory_id"], experience["depth"]) == (state.trajectory_id, state.depth):
            return
        assert self._journal is not None, "records come from it"
        raise CorruptRecord(
            f"{self._journal.path} holds actions of other states; remove it to roll the update out again"
        )


def _turn(record: Record) -> tuple[int, int]:
    """Return which action, or episode, of the update a record is of."""
    return record["state"], record["experience"]["sample"]
