"""Collect trajectories: seeded, balanced over tasks, concurrent, and resumable after any interruption."""

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
from tasks.response import parse_response
from tasks.task import Instance, Task, draw_instance

EPISODE_ATTEMPTS = 2
MAX_LOST_SHARE = 0.1  # a larger share of lost episodes means that the infrastructure is broken
OTHER_REMEDY = "use another run directory, or remove the folder to collect again"

# Called with the number of finished trajectories, the number of all, and the figures so far.
Progress = Callable[[int, int, Mapping[str, float]], None]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpisodePlan:
    """The plan of one trajectory of a collection.

    Attributes:
        trajectory_id: An id that is unique in the collection.
        instance: The task under the names of this episode.
        seed: The seed of the actor's draws.
        ideas: The ideas that the actor is asked to try.
    """

    trajectory_id: str
    instance: Instance
    seed: int
    ideas: tuple[str, ...] = ()


@dataclass
class Tally:
    """Running figures of a collection, so that reporting progress takes constant time per trajectory."""

    outcomes: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    num_trajectories: int = 0
    num_imported: int = 0
    num_submitted: int = 0
    num_improved: int = 0
    num_lenient: int = 0
    gain: float = 0.0
    num_retried: int = 0
    num_lost: int = 0
    last_loss: str = ""

    def add(self, trajectory: Trajectory, task: Task | None) -> None:
        """Count one finished trajectory, with gain 0 if its task is None."""
        self.outcomes.update(step.feedback.outcome.value for step in trajectory.steps)
        self.num_lenient += sum(parse_response(step.response).needed_leniency for step in trajectory.steps)
        gain = task.gain(trajectory.score(task.m_init)) if task else 0.0
        self.ends[trajectory.end] += 1
        self.num_trajectories += 1
        self.num_imported += bool(trajectory.steps) and not trajectory.steps[0].before.files
        self.num_submitted += bool(trajectory.steps) and trajectory.steps[-1].after.last_submission is not None
        self.num_improved += gain > 0
        self.gain += gain

    def figures(self) -> dict[str, float]:
        """Return the shares of outcomes among steps, the means of steps, valid submissions and gain, and counts.

        `lenient_share` is the share of valid responses that are not exact, 0 if there are none.

        An imported trajectory has no workspace, so nothing is known about its submissions; it counts in neither
        `num_unsubmitted` nor `num_unimproved`.
        """
        num_acted = self.num_trajectories - self.num_imported
        steps, trajectories = max(self.outcomes.total(), 1), max(self.num_trajectories, 1)
        num_valid = self.outcomes.total() - self.outcomes[Outcome.INVALID]
        outcomes = (outcome.value for outcome in Outcome if outcome is not Outcome.INFRASTRUCTURE)
        return {
            "num_trajectories": self.num_trajectories,
            **{f"{outcome}_share": self.outcomes[outcome] / steps for outcome in outcomes},
            "lenient_share": self.num_lenient / max(num_valid, 1),
            "steps": self.outcomes.total() / trajectories,
            "submitted_share": self.num_submitted / trajectories,
            "gain": self.gain / trajectories,
            "num_retried": self.num_retried,
            "num_lost": self.num_lost,
            "num_steps": self.outcomes.total(),
            "num_invalid": self.outcomes[Outcome.INVALID],
            "num_valid": num_valid,
            "num_lenient": self.num_lenient,
            "num_failed": self.outcomes[Outcome.ERROR],
            "num_not_edited": self.outcomes[Outcome.NOT_EDITED],
            "num_imported": self.num_imported,
            "num_acted": num_acted,
            "num_unsubmitted": num_acted - self.num_submitted,
            "num_unimproved": num_acted - self.num_improved,
            "num_out_of_time": self.ends["time_limit"],
            "num_out_of_context": self.ends["context_limit"],
        }


def plan_collection(
    tasks: Sequence[Task],
    num_trajectories: int,
    seed: int,
    draw_ideas: Callable[[Task, random.Random], Sequence[str]],
) -> list[EpisodePlan]:
    """Return the plans of a collection; plan i depends only on the seed and on i.

    Every block of `len(tasks)` plans has each task once, in its own random order.
    """
    plans = []
    for index in range(num_trajectories):
        block, position = divmod(index, len(tasks))
        order = random.Random(f"{seed}/tasks/{block}").sample(range(len(tasks)), len(tasks))
        task = tasks[order[position]]
        instance = draw_instance(task, random.Random(f"{seed}/names/{index}"))
        ideas = tuple(draw_ideas(task, random.Random(f"{seed}/ideas/{index}")))
        episode_seed = draw_seed(seed, "episode", index)
        plans.append(EpisodePlan(f"{seed}-{index:05d}", instance, episode_seed, ideas))
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
    """Write the trajectories of a collection to `folder`, in the order of `plans`, and return its figures.

    Each finished trajectory is appended to a journal first, so a second call runs only the missing ones. A part of the
    collection is written as Parquet when it is complete, and only unfinished parts are in memory. An episode whose
    infrastructure fails is run once more, then dropped and counted.

    Args:
        folder: The folder of the collection.
        plans: The plan of each trajectory.
        max_steps: The maximum number of actions of an episode.
        max_seconds: The time after the beginning of an episode when its last action may start, in seconds.
        num_concurrent: The number of concurrent episodes.
        progress: Called after each episode.

    Raises:
        CorruptRecord: If the records in the folder are damaged or belong to another collection.
        InfrastructureError: If more than a tenth of the trajectories, or all, were lost.
    """
    tally = Tally()
    blocks = [plans[first : first + PART_SIZE] for first in range(0, len(plans), PART_SIZE)]
    with ExitStack() as stack:
        parts = [stack.enter_context(_part(folder, number, block)) for number, block in enumerate(blocks)]
        _refuse_others(folder, parts)
        missing = [_missing(part, block, environment, tally) for part, block in zip(parts, blocks, strict=True)]
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
                if trajectory is None:
                    _check_lost(tally, len(plans))
                else:
                    parts[number].add(trajectory)
                    tally.add(trajectory, plan.instance.task)
                num_left[number] -= 1
                # In a thread, or requests would time out; one at a time, because `progress` may copy the folder.
                async with reporting:
                    if not num_left[number]:
                        await asyncio.to_thread(parts[number].store)
                    await asyncio.to_thread(progress, tally.num_trajectories, len(plans), tally.figures())

        await gather(work() for _ in range(num_concurrent))
    return tally.figures()


def _check_lost(tally: Tally, num_planned: int) -> None:
    """Raise InfrastructureError if too many episodes were lost."""
    if tally.num_lost > max(1, MAX_LOST_SHARE * num_planned) or tally.num_lost == num_planned:
        raise InfrastructureError(
            f"{tally.num_lost} of {num_planned} episodes were lost to failures of the infrastructure, more than "
            f"{MAX_LOST_SHARE:.0%}; the last one by {tally.last_loss}; all causes are in the log; run again to go on "
            "with the rest"
        )


async def _attempt(
    plan: EpisodePlan, environment: Environment, actor: Actor, tally: Tally, max_steps: int, max_seconds: float
) -> Trajectory | None:
    """Return the episode of a plan, or None if it was lost twice."""
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
            tally.last_loss = f"{type(error).__name__}: {error}"
    tally.num_lost += 1
    return None


def _part(folder: Path, number: int, plans: Sequence[EpisodePlan]) -> Part:
    return Part(folder, number, [plan.trajectory_id for plan in plans])


def _refuse_others(folder: Path, parts: Sequence[Part]) -> None:
    """Raise CorruptRecord if a folder has more parts than its collection."""
    known = {path for part in parts for path in (part.path, part.journal_path)}
    for path in sorted(folder.glob("part-*")):
        if path not in known:
            raise CorruptRecord(f"{path} belongs to another, larger collection; {OTHER_REMEDY}")


def _missing(part: Part, plans: Sequence[EpisodePlan], environment: Environment, tally: Tally) -> list[EpisodePlan]:
    """Return the plans without a trajectory in a part; the others are counted and must belong to this collection."""
    planned = {plan.trajectory_id: plan for plan in plans}
    for trajectory in part.recorded():
        plan = planned.pop(trajectory.trajectory_id, None)
        recorded = trajectory.seed, trajectory.problem, trajectory.ideas
        if plan is None or recorded != (plan.seed, environment.problem(plan.instance), plan.ideas):
            raise CorruptRecord(
                f"{part.path.parent} holds trajectory {trajectory.trajectory_id} of another collection (other seed, "
                f"tasks, ideas or number); {OTHER_REMEDY}"
            )
        tally.add(trajectory, plan.instance.task)
    return list(planned.values())
