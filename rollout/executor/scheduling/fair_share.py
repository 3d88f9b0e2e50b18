"""In what order waiting scripts begin: tasks by turns, and of a task's the longest expected first."""

from collections import Counter
from collections.abc import Collection

from rollout.types import Job

WEIGHT = 0.1  # of the newest run in the mean of a task's runs


class FairShare:
    """Ranks jobs by the turns that their tasks had, and by how long they are expected to take."""

    def __init__(self) -> None:
        self._num_turns: Counter[str] = Counter()
        self._of_script: dict[str, float] = {}
        self._of_task: dict[str, float] = {}

    def join(self, job: Job, waiting: Collection[Job]) -> None:
        """Take in that a job comes to wait beside others; its task has no turns in hand from when it had none."""
        if not waiting:
            self._num_turns.clear()
        elif all(other.task != job.task for other in waiting):
            fewest = min(self._num_turns[other.task] for other in waiting)
            self._num_turns[job.task] = max(self._num_turns[job.task], fewest)

    def rank(self, job: Job) -> tuple[int, float]:
        """Return what the job with the next turn has least of."""
        return self._num_turns[job.task], -self.expected_seconds(job)

    def begin(self, job: Job) -> None:
        """Take in that a job had its turn."""
        self._num_turns[job.task] += 1

    def end(self, job: Job, seconds: float) -> None:
        """Take in how long a job took."""
        self._of_script[job.files[job.script]] = seconds
        known = self._of_task.get(job.task, seconds)
        self._of_task[job.task] = known + WEIGHT * (seconds - known)

    def expected_seconds(self, job: Job) -> float:
        """Return what the same script took last, else what those of its task take on average, else its limit."""
        of_task = self._of_task.get(job.task, job.limits.seconds)
        return self._of_script.get(job.files[job.script], of_task)
