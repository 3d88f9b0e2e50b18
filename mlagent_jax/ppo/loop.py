"""The PPO stage: states, one action each, rewards, an update, new weights to the server; again."""

import random
import time
from dataclasses import dataclass
from typing import Any

from mlagent_jax.checkpoint import Checkpoints
from mlagent_jax.config import Config
from mlagent_jax.metrics import MetricsLog
from mlagent_jax.model.hf import load_hf
from mlagent_jax.model.sharding import make_mesh
from mlagent_jax.model.value import Critic
from mlagent_jax.ppo.learner import Learner, LearnerState
from mlagent_jax.progress import Reporter
from mlagent_jax.run_dir import RunDir
from mlagent_jax.sft.loop import save_policy
from mlagent_jax.weight_sync import WeightSync
from rollout.background import Background
from rollout.chat import ChatTokenizer
from rollout.client import PolicyClient
from rollout.context_reading import context_shares
from rollout.errors import InfrastructureError
from rollout.journal import Journal
from rollout.single_step import Experience, reward_figures, roll_out
from rollout.state_pool import PoolState, StatePool
from rollout.step import Environment


@dataclass(frozen=True)
class Rollouts:
    """The learner's side of the environment.

    Attributes:
        background: the loop that everything asynchronous runs on.
        environment: where actions are done.
        client: the policy server.
        tokenizer: the policy's.
        pool: the states to learn from.
    """

    background: Background
    environment: Environment
    client: PolicyClient
    tokenizer: ChatTokenizer
    pool: StatePool


def run(config: Config, run_dir: RunDir, reporter: Reporter, rollouts: Rollouts) -> dict[str, Any]:
    """Trains the fine-tuned policy by step-wise PPO, from the newest checkpoint on; leaves it in `ppo/model/`.

    Raises:
        ServerError: if the policy server fails for good, or does not serve the weights it was given.
    """
    learner = make_learner(config, run_dir)
    ppo = config.ppo
    sync = make_sync(config, run_dir, rollouts)
    began = time.monotonic()
    num_actions = 0
    log = MetricsLog(run_dir.path("metrics.jsonl"))
    with Checkpoints(run_dir.path("ppo", "checkpoints")) as checkpoints, log:
        saved = checkpoints.latest(learner.state)
        first = 0
        if saved is not None:
            learner.state, first = LearnerState(*saved[0]), saved[1]["update"]
        log.rewind("ppo/update", first - 1)
        rollouts.background.run(sync.push(learner.model(), first))
        with reporter.bar("ppo", ppo.num_updates, first) as bar:
            for update in range(first, ppo.num_updates):
                figures = one_update(config, learner, sync, rollouts, run_dir, update)
                num_actions += int(figures["reward/actions"])
                log.write({"ppo/update": update, **figures})
                bar.update(update + 1, {"reward": figures.get("reward/mean", 0.0), "kl": figures["ppo/kl_to_sft"]})
                if (update + 1) % ppo.checkpoint_every == 0 or update + 1 == ppo.num_updates:
                    checkpoints.save(update + 1, learner.state, {"update": update + 1})
    save_policy(learner.model(), run_dir.ppo_policy, run_dir.tokenizer)
    return {"updates": ppo.num_updates, "actions": num_actions, "training_seconds": round(time.monotonic() - began, 1)}


def make_learner(config: Config, run_dir: RunDir) -> Learner:
    """Returns the learner before the first update: policy, reference and critic are the fine-tuned model."""
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor, config.mesh.context)
    policy, trunk = (load_hf(run_dir.sft_policy, config.model.dtype, mesh, config.model.remat) for _ in range(2))
    return Learner(policy, Critic(trunk), config.ppo, mesh, config.optimizer_state)


def make_sync(config: Config, run_dir: RunDir, rollouts: Rollouts) -> WeightSync:
    """Returns the way of weights to the server; the canary is the pool's first prompt."""
    canary = rollouts.tokenizer.prompt_ids(rollouts.pool.states[0].state)
    return WeightSync(rollouts.client, run_dir.path("tmp", "weights"), canary, config.server.dtype)


def draw_states(config: Config, pool: StatePool, update: int) -> list[PoolState]:
    """Returns the states of one update, a function of the seed and the update's number."""
    rng = random.Random(f"{config.seed}/ppo/states/{update}")
    return pool.sample_groups(config.ppo.trajectories_per_update, config.ppo.states_per_trajectory, rng)


def one_update(
    config: Config, learner: Learner, sync: WeightSync, rollouts: Rollouts, run_dir: RunDir, update: int
) -> dict[str, float]:
    """Returns the figures of one update: states -> actions -> rewards -> batch -> gradients -> weights."""
    ppo = config.ppo
    clock = [time.monotonic()]
    states = draw_states(config, rollouts.pool, update)
    with Journal(run_dir.path("ppo", "actions", f"{update:05d}.jsonl")) as journal:
        experiences = rollouts.background.run(
            roll_out(
                rollouts.environment,
                rollouts.client,
                rollouts.tokenizer,
                states,
                num_samples=ppo.samples_per_state,
                seed=config.seed,
                update=update,
                reward_version=ppo.reward,
                journal=journal,
            )
        )
    clock.append(time.monotonic())
    known = [experience for experience in experiences if experience.reward is not None]
    if not known:
        raise InfrastructureError(
            f"every action of update {update} was lost to failures of the infrastructure; their causes are in the log; "
            "run the same command to go on"
        )
    scored = learner.score(known)
    clock.append(time.monotonic())
    figures = learner.update(scored, update, config.seed)
    clock.append(time.monotonic())
    rollouts.background.run(sync.push(learner.model(), update + 1))
    clock.append(time.monotonic())
    names = ("rollout_seconds", "score_seconds", "update_seconds", "sync_seconds")
    times = {f"time/{name}": end - start for name, start, end in zip(names, clock, clock[1:], strict=False)}
    return {
        **rollout_figures(experiences),
        **scored.figures,
        **figures,
        **times,
        "time/total_seconds": clock[-1] - clock[0],
    }


def rollout_figures(experiences: list[Experience]) -> dict[str, float]:
    """Returns the rewards, outcomes and context readings of a batch of actions, flat."""
    figures = {f"reward/{name}": value for name, value in reward_figures(experiences).items()}
    shares = context_shares(experience.context for experience in experiences)
    return figures | {f"context/{name}": value for name, value in shares.items()} | {"reward/actions": len(experiences)}
