"""Draw the states of each update and roll out the policy from them."""

import asyncio
import random
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rollout.environment.environment import Environment
from rollout.errors import CorruptRecord
from rollout.sampling.deadline import Deadline
from rollout.sampling.experience import Experience
from rollout.sampling.lost_actions import without_losses
from rollout.sampling.rollouts import RolloutSpec, roll_out
from rollout.sampling.state_pool import PoolState, StatePool
from rollout.storage.journal import Journal
from rollout.tokenizer.chat import ChatTokenizer
from rollout.types import Completion, Policy


@dataclass(frozen=True)
class RolloutWorker:
    """The rollouts of all updates of one run.

    Attributes:
        spec: The kind and number of the rollouts of an update.
        environment: The environment that executes actions.
        policy: The policy to sample from.
        tokenizer: The policy's tokenizer.
        pool: The states to draw from.
        journals: The folder of the journals, one file per update.
        num_trajectories: The number of trajectories whose states make up an update.
        num_depths: The number of states drawn from each of them.
        acting_seconds: The time in which the rollouts of an update may begin, in seconds; None for no limit.
        concurrency: The limit on concurrent rollouts over all updates, if there is one.
        max_masked_share: The largest share of an update's actions that may be lost to the infrastructure.
    """

    spec: RolloutSpec
    environment: Environment
    policy: Policy
    tokenizer: ChatTokenizer
    pool: StatePool
    journals: Path
    num_trajectories: int
    num_depths: int
    acting_seconds: float | None
    concurrency: asyncio.Semaphore
    max_masked_share: float

    def draw(self, update: int) -> list[PoolState]:
        """Return the states of an update, drawn from the pool as it is now."""
        rng = random.Random(f"{self.spec.seed}/ppo/states/{update}")
        return self.pool.sample_groups(self.num_trajectories, self.num_depths, rng)

    async def act(self, states: Sequence[PoolState], update: int) -> list[Experience]:
        """Return the actions of an update, including those in its journal; lost ones are run again if too many are.

        Raises the same errors as `roll_out` and `without_losses`.
        """
        deadline = Deadline(self.acting_seconds, self.concurrency) if self.acting_seconds else None
        with Journal(self._path(update)) as journal:

            def run(redo_lost: bool) -> Awaitable[list[Experience]]:
                return self._roll_out(states, update, self.policy, journal, deadline, redo_lost)

            return await without_losses(run, update, self.max_masked_share)

    async def recall(self, states: Sequence[PoolState], update: int) -> list[Experience]:
        """Return the actions of a finished update from its journal alone.

        Raises:
            CorruptRecord: If the journal is damaged or lacks an action, which would now be sampled from other weights.
        """
        with Journal(self._path(update)) as journal:
            return await self._roll_out(states, update, _NoPolicy(self._path(update)), journal)

    async def _roll_out(
        self,
        states: Sequence[PoolState],
        update: int,
        policy: Policy,
        journal: Journal,
        deadline: Deadline | None = None,
        redo_lost: bool = False,
    ) -> list[Experience]:
        return await roll_out(
            self.spec,
            self.environment,
            policy,
            self.tokenizer,
            states,
            update=update,
            journal=journal,
            deadline=deadline,
            redo_lost=redo_lost,
        )

    def _path(self, update: int) -> Path:
        return self.journals / f"{update:05d}.jsonl"


@dataclass(frozen=True)
class _NoPolicy:
    """Stand in for the policy of a finished update, whose actions are all in `journal`."""

    journal: Path

    async def sample(self, prompt_ids: Sequence[int], *, num_samples: int, seed: int) -> list[Completion]:
        """Raise CorruptRecord."""
        raise CorruptRecord(
            f"{self.journal} lacks actions of a finished update, all of which ppo.states=evolving needs; put the file "
            "back, or remove the folder ppo of the run to train again"
        )
