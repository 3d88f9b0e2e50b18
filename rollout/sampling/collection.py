"""Collects trajectories: seeded, balanced over tasks, concurrent, and resumable after any interruption."""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from rollout.environment.environment import Environment
from rollout.errors import CorruptRecord, InfrastructureError
from rollout.runtime.event_loop import gather
from rollout.sampling.episode import draw_seed, run_episode
from rollout.storage.shards import PART_SIZE, Part
from rollout.types import Actor, Trajectory
from tasks.feedback import Outcome
from tasks.naming import draw_names
from tasks.prompt import problem_text
from tasks.task import Instance, Task

EPISODE_ATTEMPTS = 2
MAX_LOST_SHARE = 0.1  # more than this, and the infrastructure, not chance, is at fault
OTHER_REMEDY = "use another run directory, or remove the folder to collect anew"

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

    def add(self, trajectory: Trajectory, task: Task | None) -> None:
        """Count one finished trajectory; where its task is not known it has no gain."""
        self.outcomes.update(step.feedback.outcome.value for step in trajectory.steps)
        self.num_trajectories += 1
        self.num_submitted += bool(trajectory.steps) and trajectory.steps[-1].after.last_submission is not None
        self.gain += task.gain(trajectory.score(task.m_init)) if task else 0.0

    def figures(self) -> dict[str, float]:
        """Return shares of outcomes among steps, and per trajectory steps, share with a valid submission and gain."""
        steps, trajectories = max(self.outcomes.total(), 1), max(self.num_trajectories, 1)
        outcomes = (outcome.value for outcome in Outcome if outcome is not Outcome.INFRASTRUCTURE)
        return {
            "num_trajectories": self.num_trajectories,
            **{f"{outcome}_share": self.outcomes[outcome] / steps for outcome in outcomes},
            "steps": self.outcomes.total() / trajectories,
            "submitted_share": self.num_submitted / trajectories,
            "gain": self.gain / trajectories,
            "num_retried": self.num_retried,
            "num_lost": self.num_lost,
        }


def plan_collection(
    tasks: Sequence[Task],
    num_trajectories: int,
    seed: int,
    draw_ideas: Callable[[Task, random.Random], Sequence[str]],
) -> list[EpisodePlan]:
    """Return the plans of a collection; plan i is a function of the seed and i alone.

    Every block of `len(tasks)` plans has each task once, in an order of its own.
    """
    plans = []
    for index in range(num_trajectories):
        block, place = divmod(index, len(tasks))
        order = random.Random(f"{seed}/tasks/{block}").sample(range(len(tasks)), len(tasks))
        task = tasks[order[place]]
        names = draw_names(random.Random(f"{seed}/names/{index}"), held_out=task.split == "held_out")
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
) -> dict[str, float]:
    """Return the figures of a collection, whose trajectories are then in `folder`, in the order of `plans`.

    Each finished one is appended to a journal first, so a second call does only what is missing; a part of the
    collection becomes Parquet as soon as it is whole, and no more than the parts under way are in memory. An episode
    whose infrastructure fails is begun once more, then given up and counted.

    Args:
        max_steps: the most actions of an episode.
        max_seconds: no action of an episode starts later than this after it began, in seconds.
        num_concurrent: episodes under way at one time.
        progress: called after each episode.

    Raises:
        CorruptRecord: where the folder's records are damaged, or of another collection.
        InfrastructureError: where more than a tenth of the trajectories were lost.
    """
    tally = Tally()
    blocks = [plans[first : first + PART_SIZE] for first in range(0, len(plans), PART_SIZE)]
    with ExitStack() as stack:
        parts = [stack.enter_context(_part(folder, number, block)) for number, block in enumerate(blocks)]
        _refuse_others(folder, parts)
        missing = [_missing(part, block, tally) for part, block in zip(parts, blocks, strict=True)]
        for part, left in zip(parts, missing, strict=True):
            if not left:
                part.store()
        progress(tally.num_trajectories, len(plans), tally.figures())
        upcoming = iter([(number, plan) for number, left in enumerate(missing) for plan in left])
        num_left = [len(left) for left in missing]
        reporting = asyncio.Lock()

        async def work() -> None:
            for number, plan in upcoming:
                trajectory = await _attempt(plan, environment, actor, tally, max_steps, max_seconds)
                if trajectory is not None:
                    parts[number].add(trajectory)
                    tally.add(trajectory, plan.instance.task)
                elif tally.num_lost > max(1, MAX_LOST_SHARE * len(plans)):
                    raise InfrastructureError(
                        f"{tally.num_lost} of {len(plans)} episodes were lost to failures of the infrastructure, more "
                        f"than {MAX_LOST_SHARE:.0%}; their causes are in the log; run again to go on with the rest"
                    )
                num_left[number] -= 1
                # Neither in the loop, whose requests would time out meanwhile, nor both at a time: `progress` may copy
                # the folder elsewhere.
                async with reporting:
                    if not num_left[number]:
                        await asyncio.to_thread(parts[number].store)
                    await asyncio.to_thread(progress, tally.num_trajectories, len(plans), tally.figures())

        await gather(work() for _ in range(num_concurrent))
    return tally.figures()


async def _attempt(
    plan: EpisodePlan, environment: Environment, actor: Actor, tally: Tally, max_steps: int, max_seconds: float
) -> Trajectory | None:
    """Return the episode of a plan, None when it was lost twice."""
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


def _part(folder: Path, number: int, plans: Sequence[EpisodePlan]) -> Part:
    return Part(folder, number, [plan.trajectory_id for plan in plans])


def _refuse_others(folder: Path, parts: Sequence[Part]) -> None:
    """Raise CorruptRecord where a folder has more parts than its collection."""
    known = {path for part in parts for path in (part.path, part.journal_path)}
    for path in sorted(folder.glob("part-*")):
        if path not in known:
            raise CorruptRecord(f"{path} is of another collection, a larger one; {OTHER_REMEDY}")


def _missing(part: Part, plans: Sequence[EpisodePlan], tally: Tally) -> list[EpisodePlan]:
    """Return the plans that a part has no trajectory of; the others are counted, and must be of this collection."""
    planned = {plan.trajectory_id: plan for plan in plans}
    for trajectory in part.recorded():
        plan = planned.pop(trajectory.trajectory_id, None)
        if plan is None or _identity(plan) != (trajectory.seed, trajectory.problem, trajectory.ideas):
            raise CorruptRecord(
                f"{part.path.parent} holds trajectory {trajectory.trajectory_id} of another collection (other seed, "
                f"tasks, ideas or number); {OTHER_REMEDY}"
            )
        tally.add(trajectory, plan.instance.task)
    return list(planned.values())


def _identity(plan: EpisodePlan) -> tuple[int, str, tuple[str, ...]]:
    return plan.seed, problem_text(plan.instance), plan.ideas
