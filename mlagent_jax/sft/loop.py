"""The fine-tuning stage: training until the held-out perplexity stops falling."""

import math
import shutil
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import PyTree

from mlagent_jax.configuration.schema import SFT, Config, OptimizerState
from mlagent_jax.model.build import build_model
from mlagent_jax.model.hf import save_hf
from mlagent_jax.model.placement import place_rows, rows_here
from mlagent_jax.model.sharding import make_mesh
from mlagent_jax.multihost import preemption
from mlagent_jax.multihost.distributed import from_main, is_main, meet
from mlagent_jax.run.run_dir import RunDir
from mlagent_jax.sft.data import Batches
from mlagent_jax.sft.inputs import Data, load_data, make_tokenizer, select, tell
from mlagent_jax.sft.step import SFTEval, SFTStep, make_sft_eval, make_sft_step
from mlagent_jax.tracking.metrics import MetricsLog
from mlagent_jax.tracking.progress import Reporter
from mlagent_jax.training.checkpoint import Checkpoints
from mlagent_jax.training.optimizer import cosine_schedule, make_optimizer
from mlagent_jax.training.train_state import TrainState, make_state
from rollout.dataset.selection import read_selection
from rollout.tokenizer.chat import ChatTokenizer


def run(config: Config, run_dir: RunDir, reporter: Reporter) -> dict[str, Any]:
    """Fine-tune the policy on what is selected of the collected trajectories; returns its figures.

    Leaves `selection.json`, `tokenizer/` and `sft/model/`.

    Raises:
        CorruptRecord: if a trajectory file is damaged.
        ValueError: if the model does not fit the configuration.
    """
    began = time.monotonic()
    selection = from_main(
        lambda: select(config, run_dir), encode=lambda _: None, decode=lambda _: read_selection(run_dir.selection)
    )
    trajectories = list(selection.read(run_dir.path("trajectories")))
    told = tell(config, trajectories)
    tokenizer = from_main(
        lambda: make_tokenizer(config, run_dir.tokenizer, told),
        encode=lambda _: None,
        decode=lambda _: ChatTokenizer(run_dir.tokenizer),
    )
    data = load_data(config, tokenizer, told, [one.trajectory_id in selection.validation for one in trajectories])
    mesh = make_mesh(**asdict(config.mesh))
    model = build_model(config.model, tokenizer, mesh, config.seed, config.server.max_model_len)
    meet()
    figures = train(config, model, data, mesh, run_dir, reporter)
    save_policy(model, run_dir.sft_policy, run_dir)
    return {
        "trajectories": len(trajectories),
        "dropped_trajectories": {each["filter"]: each["dropped"] for each in selection.report},
        "training_data": selection.identity,
        "parameters": int(sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))),
        "vocabulary": tokenizer.vocab_size,
        "cut_tellings": data.train.num_cut,
        **figures,
        "training_seconds": round(time.monotonic() - began, 1),
    }


def train(
    config: Config, model: nnx.Module, data: Data, mesh: Mesh, run_dir: RunDir, reporter: Reporter
) -> dict[str, Any]:
    """Train `model` in place and returns its figures; goes on from the newest checkpoint, also after a SIGTERM.

    Every `eval_every` steps the held-out perplexity is read; the parameters with the lowest are kept, and training ends
    when `patience` readings in a row have brought no lower one.

    Raises:
        Saved: after a SIGTERM, when the step under way is done and saved.
    """
    from mlagent_jax.sft.stream import stream  # brings grain, which nothing else that imports this file needs

    sft = config.sft
    batches = Batches(data.train, data.bucket, sft.batch_size, rows_here(mesh, sft.batch_size))
    num_steps = min(len(batches), sft.max_steps or len(batches))
    optimizer = sft_optimizer(sft, config.optimizer_state, num_steps)
    graph = nnx.split(model)[0]
    state = make_state(model, optimizer, mesh, config.optimizer_state.offload)
    step, evaluate = configured_step(sft, graph, optimizer, state), make_sft_eval(graph)
    best, best_loss, since_best, tokens, seconds = state.parameters, math.inf, 0, 0, 0.0
    log = MetricsLog(run_dir.path("metrics.jsonl"))
    with (
        Checkpoints(run_dir.path("sft", "checkpoints"), saved=run_dir.share) as checkpoints,
        log,
        closing(stream(batches)) as upcoming,
        preemption.defer_sigterm() as is_preempted,
    ):
        saved = checkpoints.latest({"state": state, "best": best})
        if saved is not None:
            tree, notes = saved
            state, best = tree["state"], tree["best"]
            best_loss, since_best = notes["best_loss"], notes["since_best"]
            tokens, seconds = notes["tokens"], notes["seconds"]
            upcoming.set_state(notes["data"])
        best = jax.tree.map(jnp.copy, best)  # the step donates its state
        done = int(state.step)
        log.rewind("sft/step", done)
        with reporter.bar("sft", num_steps, done) as bar:
            for index in range(done, num_steps):
                if since_best >= sft.patience:
                    break
                began = time.monotonic()
                state, found = step(state, place_rows(next(upcoming), mesh))
                loss = float(found["loss"])
                seconds += time.monotonic() - began
                tokens += batches.num_tokens(index)
                if not math.isfinite(loss):
                    raise FloatingPointError(f"loss became {loss} at step {index + 1}; lower sft.learning_rate")
                figures = {"loss": loss, "tokens_per_second": tokens / seconds}
                bar.update(index + 1, figures)
                line = {"sft/step": index + 1, "sft/loss": loss, "sft/tokens": tokens}
                if (index + 1) % sft.eval_every == 0 or index + 1 == num_steps:
                    validation = validation_loss(evaluate, state.parameters, data, sft.batch_size, mesh)
                    line["sft/validation_loss"] = validation
                    if validation < best_loss:
                        best, best_loss, since_best = jax.tree.map(jnp.copy, state.parameters), validation, 0
                    else:
                        since_best += 1
                log.write(line)
                stop = is_preempted()
                if "sft/validation_loss" in line or stop:
                    notes = {"best_loss": best_loss, "since_best": since_best, "tokens": tokens, "seconds": seconds}
                    notes["data"] = upcoming.get_state()
                    checkpoints.save(index + 1, {"state": state, "best": best}, notes)
                if stop:
                    raise preemption.Saved
    nnx.update(model, best)
    return {
        "steps": int(state.step),
        "tokens": tokens,
        "tokens_per_second": round(tokens / max(seconds, 1e-9)),
        "validation_loss": best_loss,
        "validation_perplexity": math.exp(best_loss),
    }


def sft_optimizer(sft: SFT, optimizer_state: OptimizerState, num_steps: int) -> optax.GradientTransformation:
    """Return the optimizer of a training of so many steps."""
    schedule = cosine_schedule(sft.learning_rate, num_steps, sft.warmup_steps, sft.min_learning_rate_ratio)
    return make_optimizer(sft.optimizer, schedule, sft.clip_norm, sft.weight_decay, optimizer_state.dtype)


def configured_step(
    sft: SFT, graph: nnx.GraphDef, optimizer: optax.GradientTransformation, state: TrainState
) -> SFTStep:
    """Return the step that the configuration asks for; `state` may be abstract."""
    return make_sft_step(graph, optimizer, state, sft.batch_size // (sft.rows_per_micro_batch or sft.batch_size))


def validation_loss(evaluate: SFTEval, parameters: PyTree, data: Data, batch_size: int, mesh: Mesh) -> float:
    """Return the mean -log p of the agent's tokens in the held-out trajectories, in nats."""
    total = weight = 0.0
    for rows in Batches(data.validation, data.bucket, batch_size, rows_here(mesh, batch_size)):
        loss, count = evaluate(parameters, place_rows(rows, mesh))
        total, weight = total + float(loss), weight + float(count)
    return total / weight


def save_policy(model: nnx.Module, folder: Path, run_dir: RunDir) -> None:
    """Write the model and its tokenizer as one Hugging Face directory; training_data.json in it is the manifest of
    the trajectories that it comes from, each with its hash."""
    if is_main():
        folder.mkdir(parents=True, exist_ok=True)
        for path in run_dir.tokenizer.iterdir():
            shutil.copyfile(path, folder / path.name)
        shutil.copyfile(run_dir.selection, folder / "training_data.json")
    save_hf(model, folder)
