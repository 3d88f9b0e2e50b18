"""Collects trajectories: seeded, balanced over tasks, concurrent, and resumable after any interruption."""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rollout.background import gather
from rollout.episode import draw_seed, run_episode
from rollout.errors import CorruptRecord, InfrastructureError
from rollout.journal import Journal
from rollout.step import Environment
from rollout.trajectories import from_record, read_trajectories, to_record, write_trajectories
from rollout.types import Actor, Trajectory
from tasks.feedback import Outcome
from tasks.naming import draw_names
from tasks.prompt import problem_text
from tasks.task import Instance, Task

JOURNAL = "journal.jsonl"
PART_SIZE = 256  # trajectories of one Parquet file
EPISODE_ATTEMPTS = 2
MAX_LOST_SHARE = 0.1  # more than this, and the infrastructure, not chance, is at fault

# Called with the number done, the number to do, and the figures so far.
Progress = Callable[[int, int, Mapping[str, float]], None]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpisodePlan:
    """What one trajectory of a collection is, before it is run.

    Attributes:
        trajectory_id: unique in the collection.
        instance: the task under this episode's names.
        seed: where the actor's draws come from.
        ideas: what the actor is asked to try.
    """

    trajectory_id: str
    instance: Instance
    seed: int
    ideas: tuple[str, ...] = ()


@dataclass
class Tally:
    """Running figures of a collection, so that progress costs the same for every trajectory."""

    outcomes: Counter[str] = field(default_factory=Counter)
    num_trajectories: int = 0
    num_submitted: int = 0
    gain: float = 0.0
    num_retried: int = 0
    num_lost: int = 0

    def add(self, trajectory: Trajectory, task: Task) -> None:
        """Counts one finished trajectory."""
        self.outcomes.update(step.feedback.outcome.value for step in trajectory.steps)
        self.num_trajectories += 1
        self.num_submitted += bool(trajectory.steps) and trajectory.steps[-1].after.last_submission is not None
        self.gain += task.gain(trajectory.score(task.m_init))

    def figures(self) -> dict[str, float]:
        """Returns shares of outcomes among steps, and per trajectory steps, share with a valid submission and gain."""
        steps, trajectories = max(self.outcomes.total(), 1), max(self.num_trajectories, 1)
        outcomes = (outcome.value for outcome in Outcome if outcome is not Outcome.INFRASTRUCTURE)
        return {
            **{f"{outcome}_share": self.outcomes[outcome] / steps for outcome in outcomes},
            "steps": self.outcomes.total() / trajectories,
            "submitted_share": self.num_submitted / trajectories,
            "span_gain": self.gain / trajectories,
            "num_retried": self.num_retried,
            "num_lost": self.num_lost,
        }


def plan_collection(
    tasks: Sequence[Task],
    num_trajectories: int,
    seed: int,
    draw_ideas: Callable[[Task, random.Random], Sequence[str]],
) -> list[EpisodePlan]:
    """Returns the plans of a collection; plan i is a function of the seed and i alone.

    Every block of `len(tasks)` plans has each task once, in an order of its own.
    """
    plans = []
    for index in range(num_trajectories):
        block, place = divmod(index, len(tasks))
        order = random.Random(f"{seed}/tasks/{block}").sample(range(len(tasks)), len(tasks))
        task = tasks[order[place]]
        names = draw_names(random.Random(f"{seed}/names/{index}"), heldout=task.split == "heldout")
        ideas = tuple(draw_ideas(task, random.Random(f"{seed}/ideas/{index}")))
        episode_seed = draw_seed(seed, "episode", index)
        plans.append(EpisodePlan(f"{seed}-{index:05d}", Instance(task, names), episode_seed, ideas))
    return plans


async def collect(
    folder: Path,
    plans: Sequence[EpisodePlan],
    environment: Environment,
    actor: Actor,
    *,
    max_steps: int,
    max_seconds: float,
    num_concurrent: int,
    progress: Progress = lambda done, total, figures: None,
) -> list[Trajectory]:
    """Returns the trajectories of `plans` in their order, and leaves them in `folder` as Parquet.

    Each finished one is appended to the folder's journal first, so a second call does only what is missing. An
    episode whose infrastructure fails is begun once more, then given up and counted.

    Args:
        max_steps: the most actions of an episode.
        max_seconds: no action of an episode starts later than this after it began, in seconds.
        num_concurrent: episodes under way at one time.
        progress: called after each episode.

    Raises:
        CorruptRecord: where the folder's records are damaged, or of another collection.
        InfrastructureError: where more than a tenth of the trajectories were lost.
    """
    finished = _finished(folder, plans)
    tally = Tally()
    for plan in plans:
        if plan.trajectory_id in finished:
            tally.add(finished[plan.trajectory_id], plan.instance.task)
    progress(len(finished), len(plans), tally.figures())
    missing = [plan for plan in plans if plan.trajectory_id not in finished]
    slots = asyncio.Semaphore(num_concurrent)

    async def run(plan: EpisodePlan, journal: Journal) -> None:
        async with slots:
            trajectory = await _attempt(plan, environment, actor, tally, max_steps, max_seconds)
        if trajectory is not None:
            journal.append(to_record(trajectory))
            finished[plan.trajectory_id] = trajectory
            tally.add(trajectory, plan.instance.task)
        elif tally.num_lost > max(1, MAX_LOST_SHARE * len(plans)):
            raise InfrastructureError(
                f"{tally.num_lost} of {len(plans)} episodes were lost to failures of the infrastructure, more than "
                f"{MAX_LOST_SHARE:.0%}; their causes are in the log; run again to go on with the missing ones"
            )
        progress(len(finished), len(plans), tally.figures())

    if missing:
        with Journal(folder / JOURNAL) as journal:
            await gather(run(plan, journal) for plan in missing)
    trajectories = [finished[plan.trajectory_id] for plan in plans if plan.trajectory_id in finished]
    _store(folder, trajectories)
    return trajectories


async def _attempt(
    plan: EpisodePlan, environment: Environment, actor: Actor, tally: Tally, max_steps: int, max_seconds: float
) -> Trajectory | None:
    """Returns the episode of a plan, None when it was lost twice."""
    for attempt in range(1, EPISODE_ATTEMPTS + 1):
        try:
            return await run_episode(
                environment,
                actor,
                plan.instance,
                trajectory_id=plan.trajectory_id,
                seed=plan.seed,
                max_steps=max_steps,
                max_seconds=max_seconds,
                ideas=plan.ideas,
            )
        except InfrastructureError as error:
            log.warning("episode %s, attempt %d: %r", plan.trajectory_id, attempt, error)
            if attempt < EPISODE_ATTEMPTS:
                tally.num_retried += 1
    tally.num_lost += 1
    return None


def _finished(folder: Path, plans: Sequence[EpisodePlan]) -> dict[str, Trajectory]:
    """Returns the trajectories that `folder` already has, by id; all of them must be of these plans."""
    found = read_trajectories(folder) if any(folder.glob("*.parquet")) else []
    if (folder / JOURNAL).exists():
        with Journal(folder / JOURNAL) as journal:
            for number, record in enumerate(journal.records, 1):
                try:
                    found.append(from_record(record))
                except (KeyError, TypeError, ValueError) as error:
                    raise CorruptRecord(
                        f"{journal.path} line {number} is not a trajectory ({error!r}); remove the line to run its "
                        "episode again"
                    ) from error
    planned = {plan.trajectory_id: plan for plan in plans}
    for trajectory in found:
        plan = planned.get(trajectory.trajectory_id)
        if plan is None or _identity(plan) != (trajectory.seed, trajectory.problem, trajectory.ideas):
            raise CorruptRecord(
                f"{folder} holds trajectory {trajectory.trajectory_id} of another collection (other seed, tasks, ideas "
                "or number); use another run directory, or remove the folder to collect anew"
            )
    return {trajectory.trajectory_id: trajectory for trajectory in found}


def _identity(plan: EpisodePlan) -> tuple[int, str, tuple[str, ...]]:
    return plan.seed, problem_text(plan.instance), plan.ideas


def _store(folder: Path, trajectories: Sequence[Trajectory]) -> None:
    """Turns the journal into Parquet parts; a crash in between leaves both, which read as the same trajectories."""
    if not (folder / JOURNAL).exists():
        return
    for start in range(0, len(trajectories), PART_SIZE):
        write_trajectories(folder / f"part-{start // PART_SIZE:05d}.parquet", trajectories[start : start + PART_SIZE])
    (folder / JOURNAL).unlink()
