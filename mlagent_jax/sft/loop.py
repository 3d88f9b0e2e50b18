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
from mlagent_jax.model.sharding import NOTHING, frozen_of
from mlagent_jax.multihost import preemption
from mlagent_jax.platform.memory_errors import memory_for
from mlagent_jax.sft.configured import configured_eval, configured_step, padded_rows, sft_optimizer
from mlagent_jax.sft.data import Batches, stream
from mlagent_jax.sft.inputs import Data
from mlagent_jax.sft.step import SFTEval, SFTStep
from mlagent_jax.tracking.base import Tracker, with_prefix
from mlagent_jax.tracking.progress import Reporter
from mlagent_jax.training.checkpoint import Checkpoints
from mlagent_jax.training.finite import NotFinite, require_finite_figures
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
        if saved is None:
            self.best = jax.tree.map(jnp.copy, self.best)  # because the step donates its state
            return
        tree, notes = saved
        self.state, self.best = tree["state"], tree["best"]
        self.best_loss, self.since_best = notes["best_loss"], notes["since_best"]
        self.tokens, self.seconds = notes["tokens"], notes["seconds"]
        upcoming.set_state(notes["data"])

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

    @memory_for("sft step", "sft.rows_per_micro_batch", "sft.max_length")
    def advance(self, step: SFTStep, take_batch: Callable[[], PackedBatch], frozen: PyTree = NOTHING) -> float:
        """Take one optimizer step and return its loss, in nats per token.

        Raises:
            NotFinite: If the loss or the norm of the gradients is not finite.
        """
        began = time.monotonic()
        self.state, arrays = step(self.state, take_batch(), frozen)
        figures = {name: float(arrays[name]) for name in ("loss", "gradient_norm")}
        self.seconds += time.monotonic() - began
        require_finite_figures(figures)
        return figures["loss"]

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
    after `patience` evaluations in a row without a lower one, if that is set.

    Raises:
        Saved: After a SIGTERM, when the current step is done and saved.
        FloatingPointError: If a loss, a gradient or a parameter is not finite.
    """
    num_rows = data.train.rows_of(sft.batch_size)
    padded = padded_rows(sft, num_rows, mesh)
    batches = Batches(data.train, data.batch_shape, num_rows, padded, rows_here(mesh, padded))
    num_steps = min(len(batches), sft.max_steps or len(batches))
    optimizer = sft_optimizer(sft, optimizer_state, num_steps)
    graph, frozen = nnx.split(model)[0], frozen_of(model)
    state = make_state(model, optimizer, mesh, optimizer_state.offload)
    step = configured_step(sft, padded, graph, optimizer, state)
    evaluate = configured_eval(sft, padded, graph)
    progress = Progress(state, state.parameters)
    del state  # or it would stay in memory beside a restored one
    with closing(stream(batches)) as upcoming, preemption.defer_sigterm() as is_preempted:
        progress.restore(checkpoints, upcoming)
        first = int(progress.state.step)
        tracker.rewind("sft/step", first)
        with reporter.bar("sft", num_steps, first) as bar:
            for done in range(first + 1, num_steps + 1):
                if sft.patience is not None and progress.since_best >= sft.patience:
                    break
                with checkpoints.named_in_errors(f"step {done}", "sft.learning_rate"):
                    loss = progress.advance(step, lambda: place_rows(next(upcoming), mesh), frozen)
                    progress.tokens += batches.num_tokens(done - 1)
                    bar.update(done, {"loss": loss, "tokens_per_second": progress.tokens / progress.seconds})
                    figures = {"step": done, "loss": loss, "tokens": progress.tokens}
                    is_evaluated = done % sft.eval_every == 0 or done == num_steps
                    if is_evaluated:
                        validation = validation_loss(evaluate, progress.state.parameters, data, padded, mesh, frozen)
                        figures["validation_loss"] = validation
                        progress.compare(validation)
                    tracker.log(with_prefix("sft", figures))
                    stop = is_preempted()
                    if is_evaluated or stop:
                        progress.save(checkpoints, done, upcoming)
                    if stop:
                        checkpoints.finish()
                        raise preemption.Saved
    nnx.update(model, progress.best)
    return {**progress.figures(), "rows_per_step": num_rows}


@memory_for("sft validation", "sft.batch_size", "sft.max_length")
def validation_loss(
    evaluate: SFTEval, parameters: PyTree, data: Data, num_rows: int, mesh: Mesh, frozen: PyTree = NOTHING
) -> float:
    """Return the mean -log p of the agent's tokens in the validation trajectories, in nats.

    Raises:
        NotFinite: If it is not finite.
    """
    total = weight = 0.0
    for rows in Batches(data.validation, data.batch_shape, num_rows, rows=rows_here(mesh, num_rows)):
        loss, count = evaluate(parameters, place_rows(rows, mesh), frozen)
        total, weight = total + float(loss), weight + float(count)
    if not math.isfinite(total):
        raise NotFinite(f"the validation loss became {total}")
    return total / weight
