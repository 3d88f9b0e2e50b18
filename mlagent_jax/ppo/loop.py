"""The PPO stage: states, one action each, rewards, an update, new weights to the server; again."""

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from mlagent_jax.configuration.schema import Config
from mlagent_jax.model.hf import load_hf
from mlagent_jax.model.sharding import make_mesh
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.model.value import Critic
from mlagent_jax.multihost import preemption
from mlagent_jax.multihost.distributed import from_main, meet
from mlagent_jax.ppo.accounting import PrefixCacheMeter, Stopwatch
from mlagent_jax.ppo.learner import Learner, LearnerState, has_own_critic
from mlagent_jax.ppo.prefetcher import RolloutPrefetcher
from mlagent_jax.ppo.train_inference_mismatch import allowed_mismatch
from mlagent_jax.run.context import RunContext
from mlagent_jax.run.run_dir import RunDir
from mlagent_jax.tracking.base import Tracker
from mlagent_jax.tracking.progress import Reporter
from mlagent_jax.training.checkpoint import Checkpoints
from mlagent_jax.training.saved_policy import save_policy
from mlagent_jax.weight_sync import WeightSync
from rollout.errors import InfrastructureError
from rollout.inference.client import PolicyClient
from rollout.runtime.timeline import TRAINING, TRANSFER, TimedPolicy
from rollout.sampling.deadline import Budget
from rollout.sampling.evolving_pool import OWN, EvolvingPool
from rollout.sampling.experience import Experience, begun_share, from_record, reward_figures, to_record
from rollout.sampling.grounding import grounding_shares
from rollout.sampling.single_step import roll_out
from rollout.sampling.state_pool import PoolState, StatePool
from rollout.sampling.whole_episodes import EpisodeLimits, roll_out_episodes
from rollout.storage.journal import Journal
from rollout.tokenizer.chat import ChatTokenizer


@dataclass(frozen=True)
class Rollouts:
    """The learner's side of the environment.

    Attributes:
        world: where actions are done.
        client: the policy server.
        tokenizer: the policy's.
        pool: the states to learn from.
    """

    world: RunContext
    client: PolicyClient
    tokenizer: ChatTokenizer
    pool: StatePool | EvolvingPool


def run(
    config: Config, run_dir: RunDir, reporter: Reporter, tracker: Tracker, rollouts: Rollouts | None
) -> dict[str, Any]:
    """Train the fine-tuned policy by step-wise PPO, from the newest checkpoint on; leaves it in `ppo/model/`.

    Of several processes process 0 acts and talks to the server; all learn, from the same experiences.

    Args:
        rollouts: None on the processes that do not lead.

    Raises:
        ServerError: if the policy server fails for good, or does not serve the weights it was given.
        Saved: after a SIGTERM, when the update under way is learnt from and saved; while it is acted, the one before.
    """
    learner = make_learner(config, run_dir)
    ppo = config.ppo
    sync = make_sync(config, run_dir, rollouts)
    began = time.monotonic()
    num_actions = 0
    saving = Checkpoints(run_dir.ppo_checkpoints, saved=run_dir.sync_remote)
    with saving as checkpoints, preemption.defer_sigterm() as is_preempted:
        saved = checkpoints.latest(learner.state)
        first = saved_at = 0
        if saved is not None:
            learner.state, first = LearnerState(*saved[0]), saved[1]["update"]
            saved_at = first
        tracker.rewind("ppo/update", first - 1)
        push(sync, learner, rollouts, first)
        with reporter.bar("ppo", ppo.num_updates, first) as bar, look_ahead(config, rollouts, run_dir) as ahead:
            if ahead is not None:
                ahead.skip(first)
            watch, cache = begin_accounts(rollouts)
            for update in range(first, ppo.num_updates):
                figures = one_update(config, learner, sync, rollouts, ahead, watch, update)
                if figures is None:
                    if update > saved_at:
                        checkpoints.save(update, learner.state, {"update": update})
                    raise preemption.Saved
                num_actions += int(figures["reward/actions"])
                tracker.log({"ppo/update": update, **figures, **cache.lap(), **scripts(rollouts)})
                bar.update(update + 1, {"reward": figures.get("reward/mean", 0.0), "kl": figures["ppo/kl_to_sft"]})
                stop = is_preempted()
                if (update + 1) % ppo.checkpoint_every == 0 or update + 1 == ppo.num_updates or stop:
                    checkpoints.save(update + 1, learner.state, {"update": update + 1})
                    saved_at = update + 1
                if stop:
                    raise preemption.Saved
    save_policy(learner.model(), run_dir.ppo_policy, run_dir.tokenizer, run_dir.selection, sync.canary)
    return {"updates": ppo.num_updates, "actions": num_actions, "training_seconds": round(time.monotonic() - began, 1)}


def make_learner(config: Config, run_dir: RunDir) -> Learner:
    """Return the learner before the first update: policy, reference and critic are the fine-tuned model."""
    mesh = make_mesh(**asdict(config.mesh))
    ppo = config.ppo

    def fine_tuned() -> Transformer:
        return load_hf(run_dir.sft_policy, config.model.dtype, mesh, config.model.remat)

    policy = fine_tuned()
    critic = Critic(fine_tuned()) if has_own_critic(ppo) else None
    meet()
    return Learner(policy, critic, ppo, mesh, config.optimizer_state, allowed_mismatch(config))


def make_sync(config: Config, run_dir: RunDir, rollouts: Rollouts | None) -> WeightSync:
    """Return the way of weights to the server; the canary is the pool's first prompt."""

    def first_prompt() -> list[int]:
        assert rollouts is not None, "process 0 has them"
        return rollouts.tokenizer.prompt_ids(rollouts.pool.states[0].state)

    canary = from_main(first_prompt)
    return WeightSync(rollouts.client if rollouts else None, run_dir.temporary / "weights", canary, config.server.dtype)


def begin_accounts(rollouts: Rollouts | None) -> tuple[Stopwatch, PrefixCacheMeter]:
    """Return what measures the updates to come, the first from now on."""
    if rollouts is None:
        return Stopwatch(None), PrefixCacheMeter(None)
    world, client = rollouts.world, rollouts.client
    world.scheduler.take()
    return Stopwatch(world.timeline, world.num_slots), PrefixCacheMeter(
        lambda: world.event_loop.run(client.prefix_cache_stats())
    )


def scripts(rollouts: Rollouts | None) -> dict[str, float]:
    """Return how the scripts that ended since the last call did, and how long they had waited, flat."""
    return {} if rollouts is None else rollouts.world.scheduler.take().flat()


def push(sync: WeightSync, learner: Learner, rollouts: Rollouts | None, version: int) -> None:
    """Make the policy as it is now what the server samples from; every process has a part of the weights."""
    written = sync.write(learner.model())
    if rollouts is not None:
        rollouts.world.event_loop.run(sync.give(written, version))


@contextmanager
def look_ahead(config: Config, rollouts: Rollouts | None, run_dir: RunDir) -> Iterator[RolloutPrefetcher | None]:
    """Yield the actions of the updates, those of their journals first; None on the processes that do not lead."""
    if rollouts is None:
        yield None
        return
    ppo, world = config.ppo, rollouts.world
    length = EpisodeLimits(config.collect.max_steps, config.server.max_model_len, ppo.max_response_tokens)
    places = asyncio.Semaphore(world.num_concurrent)  # of all updates whose actions are under way
    roll_out_all = partial(roll_out_episodes, length=length) if ppo.episodes else roll_out

    def draw(update: int) -> list[PoolState]:
        rng = random.Random(f"{config.seed}/ppo/states/{update}")
        return rollouts.pool.sample_groups(ppo.trajectories_per_update, ppo.states_per_trajectory, rng)

    async def act(states: Sequence[PoolState], update: int) -> list[Experience]:
        budget = Budget(ppo.acting_seconds, places) if ppo.acting_seconds else None
        with Journal(run_dir.ppo_actions / f"{update:05d}.jsonl") as journal:
            return await roll_out_all(
                world.environment,
                TimedPolicy(rollouts.client, world.timeline),
                rollouts.tokenizer,
                states,
                num_samples=ppo.samples_per_state,
                seed=config.seed,
                update=update,
                rules=config.reward,
                journal=journal,
                budget=budget,
            )

    with closing(RolloutPrefetcher(world.event_loop, rollouts.pool, draw, act, ppo.max_staleness)) as ahead:
        yield ahead


def _encode(experiences: Sequence[Experience] | None) -> list[Any] | None:
    return (
        None if experiences is None else [[experience.prompt_ids, to_record(experience)] for experience in experiences]
    )


def _decode(records: Sequence[Any] | None) -> list[Experience] | None:
    return None if records is None else [from_record(record, tuple(prompt_ids)) for prompt_ids, record in records]


def one_update(
    config: Config,
    learner: Learner,
    sync: WeightSync,
    rollouts: Rollouts | None,
    ahead: RolloutPrefetcher | None,
    watch: Stopwatch,
    update: int,
) -> dict[str, float] | None:
    """Return the figures of one update: states -> actions -> rewards -> batch -> gradients -> weights.

    None where a SIGTERM ended it among its actions: the journal keeps those that are done, and nothing was learnt.
    """

    def act_here() -> list[Experience] | None:
        assert ahead is not None, "process 0 acts"
        try:
            with preemption.raise_on_sigterm():
                return ahead.take(update, config.ppo.num_updates)
        except preemption.Preempted:
            return None

    with watch("rollout"):
        experiences = from_main(act_here, _encode, _decode)
    if experiences is None:
        return None
    known = [experience for experience in experiences if experience.reward is not None]
    if not known:
        raise InfrastructureError(
            f"every action of update {update} was lost to failures of the infrastructure; their causes are in the log; "
            "run the same command to go on"
        )
    with watch("score", TRAINING):
        scored = learner.score(known, update)
    with watch("update", TRAINING):
        figures = learner.update(scored, update, config.seed, begun_share(experiences))
    with watch("sync", TRANSFER):
        push(sync, learner, rollouts, update + 1)
    return {**rollout_figures(experiences), **scored.figures, **figures, **watch.lap(experiences)}


def rollout_figures(experiences: Sequence[Experience]) -> dict[str, float]:
    """Return the rewards, outcomes and context readings of a batch of actions, flat."""
    figures = {f"reward/{name}": value for name, value in reward_figures(experiences).items()}
    begun = [experience for experience in experiences if not experience.cut]
    shares = grounding_shares(experience.context for experience in begun)
    figures |= {f"context/{name}": value for name, value in shares.items()}
    own = sum(OWN in experience.trajectory_id for experience in begun)
    return figures | {"reward/actions": len(begun), "states/own_share": own / len(begun)}
