"""Count what an import leaves out of conversations, or finds in them that fine-tuning cannot use."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rollout.dataset.conversation import SPEAKER, TEXT, system_texts, turns_key
from rollout.errors import WorthlessResult
from rollout.types import Trajectory
from tasks.feedback import Outcome
from tasks.quoting import MAX_LISTED, quoted
from tasks.system_text import is_system_text

NO_ACTION = "the policy would learn to answer like this, and this environment takes no such answer"


class ImportCounts:
    """Counts over the conversations of one import."""

    def __init__(self) -> None:
        self.num_conversations = self.num_answers = self.num_invalid = 0
        self.with_system = self.with_open_end = 0
        self.num_empty = {"human": 0, "gpt": 0}
        self.unknown_keys: Counter[str] = Counter()  # key -> conversations that have it
        self.unknown_turn_keys: Counter[str] = Counter()  # key -> turns that have it

    def add(self, record: Mapping[str, Any], trajectory: Trajectory) -> None:
        """Count one conversation.

        Args:
            record: The conversation as read.
            trajectory: What the import made of it.
        """
        turns = turns_key(record)
        self.num_conversations += 1
        self.num_answers += len(trajectory.steps)
        self.num_invalid += sum(step.feedback.outcome is Outcome.INVALID for step in trajectory.steps)
        self.with_system += any(map(_is_own, system_texts(record)))
        self.with_open_end += bool(trajectory.steps[-1].feedback.text)
        feedbacks = [step.feedback.text for step in trajectory.steps[:-1]]
        self.num_empty["human"] += sum(not text.strip() for text in (trajectory.problem, *feedbacks))
        self.num_empty["gpt"] += sum(not step.response.strip() for step in trajectory.steps)
        self.unknown_keys.update(_stated(record) - {"id", "task", "system", turns})
        for turn in record[turns]:
            self.unknown_turn_keys.update(_stated(turn) - {*SPEAKER, *TEXT})

    def lines(self) -> list[str]:
        """Return one line for everything that was left out or cannot be used."""
        num, found = self.num_conversations, []
        if self.with_system:
            found.append(
                f"{self.with_system} of {num} conversations have their own system text, which is dropped: the policy "
                "reads the one that the run's section `prompt` chooses"
            )
        if self.unknown_keys:
            found.append(f"keys of conversations that are not used: {_listed(self.unknown_keys)}")
        if self.unknown_turn_keys:
            found.append(
                f"keys of turns that are not used: {_listed(self.unknown_turn_keys)}; every answer is trained on with "
                "the same weight"
            )
        if self.with_open_end:
            found.append(
                f"{self.with_open_end} of {num} conversations end with a turn of the human, which nothing answers"
            )
        for speaker, count in self.num_empty.items():
            if count:
                found.append(f"{count} turns of the {'human' if speaker == 'human' else 'agent'} have an empty text")
        if self.num_invalid:
            found.append(f"{self.num_invalid} of {self.num_answers} answers are no valid action: {NO_ACTION}")
        return found

    def require_actions(self, max_invalid_share: float) -> None:
        """Raise WorthlessResult if more than `max_invalid_share` of the answers are no valid action."""
        if self.num_invalid > max_invalid_share * self.num_answers:
            raise WorthlessResult(
                f"{self.num_invalid} of {self.num_answers} answers are no valid action, more than "
                f"--max-invalid-share {max_invalid_share:g}: {NO_ACTION}; compare with those of "
                "`mlagent data export`, or import them anyway with --max-invalid-share 1"
            )


def _is_own(system: str) -> bool:
    """Return whether a system text is none that an export writes."""
    return bool(system.strip()) and not is_system_text(system.strip())


def _stated(values: Mapping[str, Any]) -> set[str]:
    """Return the keys that say something."""
    return {key for key, value in values.items() if value not in (None, "", [], {})}


def _listed(counts: Counter[str]) -> str:
    most = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    more = f" and {len(most) - MAX_LISTED} other keys" if len(most) > MAX_LISTED else ""
    return ", ".join(f"{count} times {quoted(key)}" for key, count in most[:MAX_LISTED]) + more
