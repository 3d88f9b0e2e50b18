"""The loop of fine-tuning: train until the validation loss stops falling, and keep the best parameters."""

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import grain
import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import PyTree

from mlagent_jax.configuration.schema import SFT, OptimizerState
from mlagent_jax.model.packed_batch import PackedBatch
from mlagent_jax.model.placement import place_rows, rows_here
from mlagent_jax.multihost import preemption
from mlagent_jax.sft.configured import configured_step, sft_optimizer
from mlagent_jax.sft.data import Batches
from mlagent_jax.sft.inputs import Data
from mlagent_jax.sft.step import SFTEval, SFTStep, make_sft_eval
from mlagent_jax.sft.stream import stream
from mlagent_jax.tracking.base import Tracker, with_prefix
from mlagent_jax.tracking.progress import Reporter
from mlagent_jax.training.checkpoint import Checkpoints
from mlagent_jax.training.train_state import TrainState, make_state


@dataclass
class Progress:
    """The state of a training run, which its checkpoints store completely.

    Attributes:
        state: Parameters, optimizer state and number of steps.
        best: The parameters with the lowest validation loss so far.
        best_loss: Their validation loss, in nats per token.
        since_best: Evaluations since then.
        tokens: Tokens that were trained on, without padding.
        seconds: Time spent in steps.
    """

    state: TrainState
    best: PyTree
    best_loss: float = math.inf
    since_best: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def restore(self, checkpoints: Checkpoints, upcoming: grain.DatasetIterator[PackedBatch]) -> None:
        """Continue from the newest checkpoint, if there is one, and move the batches to its position."""
        saved = checkpoints.latest({"state": self.state, "best": self.best})
        if saved is not None:
            tree, notes = saved
            self.state, self.best = tree["state"], tree["best"]
            self.best_loss, self.since_best = notes["best_loss"], notes["since_best"]
            self.tokens, self.seconds = notes["tokens"], notes["seconds"]
            upcoming.set_state(notes["data"])
        self.best = jax.tree.map(jnp.copy, self.best)  # because the step donates its state

    def save(self, checkpoints: Checkpoints, step: int, upcoming: grain.DatasetIterator[PackedBatch]) -> None:
        """Write a checkpoint of `step` steps."""
        notes = {
            "best_loss": self.best_loss,
            "since_best": self.since_best,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "data": upcoming.get_state(),
        }
        checkpoints.save(step, {"state": self.state, "best": self.best}, notes)

    def advance(self, step: SFTStep, take_batch: Callable[[], PackedBatch]) -> float:
        """Take one optimizer step and return its loss, in nats per token."""
        began = time.monotonic()
        self.state, figures = step(self.state, take_batch())
        loss = float(figures["loss"])
        self.seconds += time.monotonic() - began
        return loss

    def compare(self, loss: float) -> None:
        """Keep the present parameters if their validation loss is the lowest so far."""
        if loss < self.best_loss:
            self.best, self.best_loss, self.since_best = jax.tree.map(jnp.copy, self.state.parameters), loss, 0
        else:
            self.since_best += 1

    def figures(self) -> dict[str, Any]:
        """Return the figures of the whole training."""
        return {
            "steps": int(self.state.step),
            "tokens": self.tokens,
            "tokens_per_second": round(self.tokens / max(self.seconds, 1e-9)),
            "validation_loss": self.best_loss,
            "validation_perplexity": math.exp(self.best_loss),
        }


def fine_tune(
    model: nnx.Module,
    data: Data,
    sft: SFT,
    optimizer_state: OptimizerState,
    mesh: Mesh,
    checkpoints: Checkpoints,
    tracker: Tracker,
    reporter: Reporter,
) -> dict[str, Any]:
    """Train `model` in place, from the newest checkpoint on, and return the figures of the training.

    Every `eval_every` steps the validation loss is computed. The parameters with the lowest are kept, and training ends
    after `patience` evaluations in a row without a lower one.

    Raises:
        Saved: After a SIGTERM, when the current step is done and saved.
        FloatingPointError: If the loss is not finite.
    """
    batches = Batches(data.train, data.batch_shape, sft.batch_size, rows_here(mesh, sft.batch_size))
    num_steps = min(len(batches), sft.max_steps or len(batches))
    optimizer = sft_optimizer(sft, optimizer_state, num_steps)
    graph = nnx.split(model)[0]
    state = make_state(model, optimizer, mesh, optimizer_state.offload)
    step, evaluate = configured_step(sft, graph, optimizer, state), make_sft_eval(graph)
    progress = Progress(state, state.parameters)
    del state  # or it would stay in memory beside a restored one
    with closing(stream(batches)) as upcoming, preemption.defer_sigterm() as is_preempted:
        progress.restore(checkpoints, upcoming)
        first = int(progress.state.step)
        tracker.rewind("sft/step", first)
        with reporter.bar("sft", num_steps, first) as bar:
            for done in range(first + 1, num_steps + 1):
                if progress.since_best >= sft.patience:
                    break
                loss = progress.advance(step, lambda: place_rows(next(upcoming), mesh))
                progress.tokens += batches.num_tokens(done - 1)
                if not math.isfinite(loss):
                    raise FloatingPointError(f"loss became {loss} at step {done}; lower sft.learning_rate")
                bar.update(done, {"loss": loss, "tokens_per_second": progress.tokens / progress.seconds})
                figures = {"step": done, "loss": loss, "tokens": progress.tokens}
                is_evaluated = done % sft.eval_every == 0 or done == num_steps
                if is_evaluated:
                    validation = validation_loss(evaluate, progress.state.parameters, data, sft.batch_size, mesh)
                    figures["validation_loss"] = validation
                    progress.compare(validation)
                tracker.log(with_prefix("sft", figures))
                stop = is_preempted()
                if is_evaluated or stop:
                    progress.save(checkpoints, done, upcoming)
                if stop:
                    raise preemption.Saved
    nnx.update(model, progress.best)
    return progress.figures()


def validation_loss(evaluate: SFTEval, parameters: PyTree, data: Data, batch_size: int, mesh: Mesh) -> float:
    """Return the mean -log p of the agent's tokens in the validation trajectories, in nats.

    Raises:
        FloatingPointError: If it is not finite.
    """
    total = weight = 0.0
    for rows in Batches(data.validation, data.batch_shape, batch_size, rows_here(mesh, batch_size)):
        loss, count = evaluate(parameters, place_rows(rows, mesh))
        total, weight = total + float(loss), weight + float(count)
    if not math.isfinite(total):
        raise FloatingPointError(f"validation loss became {total}; lower sft.learning_rate")
    return total / weight
