"""The order of waiting scripts: tasks share evenly, and a task's scripts start longest expected first."""

from collections import Counter
from collections.abc import Collection

from rollout.types import Job

WEIGHT = 0.1  # weight of the newest run in the moving average of a task's run times


class FairShare:
    """A ranking of jobs by the number of runs of their tasks, and then by their expected duration."""

    def __init__(self) -> None:
        self._num_runs: Counter[str] = Counter()
        self._script_seconds: dict[str, float] = {}
        self._task_seconds: dict[str, float] = {}

    def join(self, job: Job, waiting: Collection[Job]) -> None:
        """Record that a job starts to wait; a task earns no credit while it has no waiting jobs."""
        if not waiting:
            self._num_runs.clear()
        elif all(other.task != job.task for other in waiting):
            fewest = min(self._num_runs[other.task] for other in waiting)
            self._num_runs[job.task] = max(self._num_runs[job.task], fewest)

    def rank(self, job: Job) -> tuple[int, float]:
        """Return the sort key of a waiting job; the smallest goes first."""
        return self._num_runs[job.task], -self.expected_seconds(job)

    def begin(self, job: Job) -> None:
        """Record that a job starts to run."""
        self._num_runs[job.task] += 1

    def end(self, job: Job, seconds: float) -> None:
        """Record how long a job took."""
        self._script_seconds[job.files[job.script]] = seconds
        average = self._task_seconds.get(job.task, seconds)
        self._task_seconds[job.task] = average + WEIGHT * (seconds - average)

    def expected_seconds(self, job: Job) -> float:
        """Return the last time of the same script, else the average of its task, else its time limit."""
        of_task = self._task_seconds.get(job.task, job.limits.seconds)
        return self._script_seconds.get(job.files[job.script], of_task)
