"""The training loop of PPO: roll out, score, update, serve the new weights, and repeat."""

import logging
import time
from typing import Any

from mlagent_jax.configuration.schema import PPO
from mlagent_jax.multihost import preemption
from mlagent_jax.platform import cpu
from mlagent_jax.ppo.learner import Learner, LearnerState
from mlagent_jax.ppo.roles import Role
from mlagent_jax.tracking.base import Tracker
from mlagent_jax.tracking.progress import Reporter
from mlagent_jax.training.checkpoint import Checkpoints
from rollout.errors import InfrastructureError
from rollout.runtime.timeline import TRAINING, TRANSFER

LEARNING_RATES = "ppo.learning_rate or ppo.critic_learning_rate"
NUM_REJECTED = 3  # updates in a row whose step is rejected, after which there is a warning
REJECTED = (
    "the last %d updates left the policy unchanged: the KL of every step was above ppo.max_update_kl=%g; "
    "lower ppo.learning_rate, or raise ppo.max_update_kl"
)

log = logging.getLogger(__name__)


def train(
    ppo: PPO,
    seed: int,
    learner: Learner,
    role: Role,
    checkpoints: Checkpoints,
    tracker: Tracker,
    reporter: Reporter,
) -> dict[str, Any]:
    """Train the learner from the newest checkpoint to the last update, and return the figures of the training.

    With several processes, process 0 leads and the others follow; all learn from the same samples.

    Args:
        ppo: The PPO section of the configuration.
        seed: The seed of the order of minibatches.
        learner: The learner before the first update.
        role: The role of this process.
        checkpoints: The checkpoints of the training.
        tracker: The receiver of metrics.
        reporter: The reporter of progress.

    Raises:
        ServerError: If the policy server fails permanently, or does not serve the weights that it was given.
        Saved: After a SIGTERM. A SIGTERM during the rollouts stops before the update, a later one after it.
        FloatingPointError: If a loss, a gradient, a value or a log-probability is not finite.
    """
    began = time.monotonic()
    num_actions = num_rejected = 0
    with preemption.defer_sigterm() as is_preempted:
        first = saved_at = restore(learner, checkpoints)
        tracker.rewind("ppo/update", first - 1)
        role.begin(first, learner)
        with reporter.bar("ppo", ppo.num_updates, first) as bar:
            for update in range(first, ppo.num_updates):
                with checkpoints.named_in_errors(f"update {update}", LEARNING_RATES):
                    figures = one_update(learner, role, update, seed)
                    if figures is None:
                        if update > saved_at:
                            save(update, learner, checkpoints)
                        checkpoints.finish()
                        raise preemption.Saved
                    num_actions += int(figures.get("reward/actions", 0))
                    num_rejected = num_rejected + 1 if figures.get("ppo/step_share") == 0.0 else 0
                    if num_rejected and num_rejected % NUM_REJECTED == 0:
                        log.warning(REJECTED, num_rejected, ppo.max_update_kl)
                    tracker.log({"ppo/update": update, **figures})
                    bar.update(update + 1, {"reward": figures.get("reward/mean", 0.0), "kl": figures["ppo/kl_to_sft"]})
                    stop = is_preempted()
                    if (update + 1) % ppo.checkpoint_every == 0 or update + 1 == ppo.num_updates or stop:
                        save(update + 1, learner, checkpoints)
                        saved_at = update + 1
                    if stop:
                        checkpoints.finish()
                        raise preemption.Saved
    return {"updates": ppo.num_updates, "actions": num_actions, "training_seconds": round(time.monotonic() - began, 1)}


def restore(learner: Learner, checkpoints: Checkpoints) -> int:
    """Load the newest checkpoint into the learner, if there is one, and return the number of finished updates."""
    checkpoint = checkpoints.latest(learner.state)
    if checkpoint is None:
        return 0
    state, notes = checkpoint
    learner.state, learner.version = LearnerState(*state), notes["version"]
    return notes["update"]


def save(num_updates: int, learner: Learner, checkpoints: Checkpoints) -> None:
    """Write a checkpoint of the learner after a number of updates."""
    checkpoints.save(num_updates, learner.state, {"update": num_updates, "version": learner.version})


def one_update(learner: Learner, role: Role, update: int, seed: int) -> dict[str, float] | None:
    """Run one update and return its figures: states -> actions -> rewards -> batch -> gradients -> weights.

    Return None if a SIGTERM ended its actions. The finished ones are in the journal, and nothing was learned.

    Raises:
        InfrastructureError: If no action has a known reward.
        NotFinite: If a loss, a gradient, a value or a log-probability is not finite, before anything is served.
    """
    with role.phase("rollout"):
        taken = role.take(update)
    if taken is None:
        return None
    if not taken.samples:
        raise InfrastructureError(
            f"every action of update {update} was lost to failures of the infrastructure; their causes are in the log; "
            "run the same command to go on"
        )
    with role.phase("score", TRAINING):
        prepared = learner.score(taken.samples)
    with role.phase("update", TRAINING):
        figures = learner.update(prepared, update, seed, taken.begun_share)
    cpu.return_freed_memory()
    with role.phase("sync", TRANSFER):
        role.serve(learner)
    return {**prepared.figures, **figures, **role.figures()}
