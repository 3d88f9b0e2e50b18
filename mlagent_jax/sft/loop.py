"""The fine-tuning stage: tokenizer, tellings, training until the held-out perplexity stops falling."""

import math
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import PyTree

from mlagent_jax import preemption
from mlagent_jax.checkpoint import Checkpoints
from mlagent_jax.config import Config
from mlagent_jax.distributed import from_main, is_main, meet
from mlagent_jax.metrics import MetricsLog
from mlagent_jax.model.build import build_model
from mlagent_jax.model.hf import save_hf
from mlagent_jax.model.sharding import make_mesh, place_rows, rows_here
from mlagent_jax.optim import cosine_schedule, make_optimizer
from mlagent_jax.progress import Reporter
from mlagent_jax.run_dir import RunDir
from mlagent_jax.sft.data import Bucket, Dataset, batches, bucket_of, pack
from mlagent_jax.sft.step import SFTEval, make_sft_eval, make_sft_step
from mlagent_jax.train_state import make_state
from rollout.augment import variants
from rollout.chat import ChatTokenizer, train_tokenizer
from rollout.trajectories import read_trajectories
from rollout.types import Trajectory
from rollout.wording import reword
from tasks.naming import vocabulary_text
from tasks.prompt import messages
from tasks.state import State

NAME_COUNT = 40  # how often every file name is put to a fresh tokenizer, so that each becomes few tokens
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class Data:
    """What is trained on, and what the held-out perplexity is taken on; no trajectory is in both."""

    train: Dataset
    heldout: Dataset
    bucket: Bucket


def run(config: Config, run_dir: RunDir, reporter: Reporter) -> dict[str, Any]:
    """Fine-tunes the policy on the collected trajectories; leaves `tokenizer/` and `sft/model/`; returns its figures.

    Raises:
        CorruptRecord: if a trajectory file is damaged.
        ValueError: if the model does not fit the configuration.
    """
    began = time.monotonic()
    trajectories = read_trajectories(run_dir.path("trajectories"))
    told = tell(config, trajectories)
    tokenizer = from_main(
        lambda: make_tokenizer(config, run_dir.tokenizer, told),
        encode=lambda _: None,
        decode=lambda _: ChatTokenizer(run_dir.tokenizer),
    )
    data = load_data(config, tokenizer, told)
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor, config.mesh.context)
    model = build_model(config, tokenizer, mesh)
    meet()
    figures = train(config, model, data, mesh, run_dir, reporter)
    save_policy(model, run_dir.sft_policy, run_dir.tokenizer)
    return {
        "trajectories": len(trajectories),
        "parameters": int(sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))),
        "vocabulary": tokenizer.vocab_size,
        "cut_tellings": data.train.num_cut,
        **figures,
        "training_seconds": round(time.monotonic() - began, 1),
    }


def make_tokenizer(config: Config, folder: Path, told: Sequence[Sequence[State]]) -> ChatTokenizer:
    """Returns the policy's tokenizer, and leaves it in `folder`: the checkpoint's, or one trained on all tellings."""
    if config.model.path is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in TOKENIZER_FILES:
            source = Path(config.model.path) / name
            if not source.is_file():
                raise ValueError(f"{source}: no such file; model.path needs the tokenizer beside the weights")
            shutil.copyfile(source, folder / name)
    else:
        texts = [message["content"] for states in told for state in states for message in messages(state)]
        texts += [vocabulary_text()] * NAME_COUNT
        train_tokenizer(texts, folder, config.tokenizer.vocab_size)
    return ChatTokenizer(folder)


def tell(config: Config, trajectories: Sequence[Trajectory]) -> list[list[State]]:
    """Returns every trajectory in `sft.wordings` wordings, the recorded one first."""
    return [variants(trajectory, config.sft.wordings, config.seed, reword) for trajectory in trajectories]


def load_data(config: Config, tokenizer: ChatTokenizer, told: Sequence[Sequence[State]]) -> Data:
    """Returns the rows of training, epoch after epoch, and those of the held-out perplexity."""
    sft = config.sft
    num_heldout = max(1, round(sft.heldout_share * len(told)))
    order = random.Random(f"{config.seed}/sft/split").sample(range(len(told)), len(told))
    heldout = [state for index in order[:num_heldout] for state in told[index][:2]]
    train = [state for index in order[num_heldout:] for state in told[index]]
    rows: list = []
    num_cut = 0
    for epoch in range(math.ceil(sft.num_epochs)):
        packed = pack(train, tokenizer, sft.max_length, config.seed + epoch)
        rows += packed.rows[: round(len(packed.rows) * min(1.0, sft.num_epochs - epoch))]
        num_cut = packed.num_cut
    train_set, heldout_set = Dataset(tuple(rows), num_cut), pack(heldout, tokenizer, sft.max_length, config.seed)
    return Data(train_set, heldout_set, bucket_of([train_set, heldout_set], sft.max_length))


def train(
    config: Config, model: nnx.Module, data: Data, mesh: Mesh, run_dir: RunDir, reporter: Reporter
) -> dict[str, Any]:
    """Trains `model` in place and returns its figures; goes on from the newest checkpoint, also after a SIGTERM.

    Every `eval_every` steps the held-out perplexity is read; the parameters with the lowest are kept, and training ends
    when `patience` readings in a row have brought no lower one.

    Raises:
        Saved: after a SIGTERM, when the step under way is done and saved.
    """
    sft = config.sft
    num_steps = math.ceil(len(data.train.rows) / sft.batch_size)
    num_steps = min(num_steps, sft.max_steps or num_steps)
    schedule = cosine_schedule(sft.learning_rate, num_steps, sft.warmup_steps, sft.min_learning_rate_ratio)
    optimizer = make_optimizer(sft.optimizer, schedule, sft.clip_norm, sft.weight_decay)
    graph = nnx.split(model)[0]
    state = make_state(model, optimizer, mesh)
    num_micro_batches = sft.batch_size // (sft.rows_per_micro_batch or sft.batch_size)
    step, evaluate = make_sft_step(graph, optimizer, state, num_micro_batches), make_sft_eval(graph)
    best, best_loss, since_best, tokens, seconds = state.parameters, math.inf, 0, 0, 0.0
    log = MetricsLog(run_dir.path("metrics.jsonl"))
    here = rows_here(mesh, sft.batch_size)
    with Checkpoints(run_dir.path("sft", "checkpoints")) as checkpoints, log, preemption.heeded() as is_preempted:
        saved = checkpoints.latest({"state": state, "best": best})
        if saved is not None:
            tree, notes = saved
            state, best = tree["state"], tree["best"]
            best_loss, since_best = notes["best_loss"], notes["since_best"]
            tokens, seconds = notes["tokens"], notes["seconds"]
        best = jax.tree.map(jnp.copy, best)  # the step donates its state
        done = int(state.step)
        log.rewind("sft/step", done)
        with reporter.bar("sft", num_steps, done) as bar:
            for index, rows in enumerate(batches(data.train.rows, data.bucket, sft.batch_size)):
                if index < done or index >= num_steps or since_best >= sft.patience:
                    continue
                began = time.monotonic()
                state, found = step(state, place_rows(jax.tree.map(lambda leaf: leaf[here], rows), mesh))
                loss = float(found["loss"])
                seconds += time.monotonic() - began
                tokens += int(np.sum(rows.layout.segments > 0))
                if not math.isfinite(loss):
                    raise FloatingPointError(f"loss became {loss} at step {index + 1}; lower sft.learning_rate")
                figures = {"loss": loss, "tokens_per_second": tokens / seconds}
                bar.update(index + 1, figures)
                line = {"sft/step": index + 1, "sft/loss": loss, "sft/tokens": tokens}
                if (index + 1) % sft.eval_every == 0 or index + 1 == num_steps:
                    heldout = heldout_loss(evaluate, state.parameters, data, sft.batch_size, mesh)
                    line["sft/heldout_loss"] = heldout
                    if heldout < best_loss:
                        best, best_loss, since_best = jax.tree.map(jnp.copy, state.parameters), heldout, 0
                    else:
                        since_best += 1
                log.write(line)
                stop = is_preempted()
                if "sft/heldout_loss" in line or stop:
                    notes = {"best_loss": best_loss, "since_best": since_best, "tokens": tokens, "seconds": seconds}
                    checkpoints.save(index + 1, {"state": state, "best": best}, notes)
                if stop:
                    raise preemption.Saved
    nnx.update(model, best)
    return {
        "steps": int(state.step),
        "tokens": tokens,
        "tokens_per_second": round(tokens / max(seconds, 1e-9)),
        "heldout_loss": best_loss,
        "heldout_perplexity": math.exp(best_loss),
    }


def heldout_loss(evaluate: SFTEval, parameters: PyTree, data: Data, batch_size: int, mesh: Mesh) -> float:
    """Returns the mean -log p of the agent's tokens in the held-out trajectories, in nats."""
    total = weight = 0.0
    here = rows_here(mesh, batch_size)
    for rows in batches(data.heldout.rows, data.bucket, batch_size):
        loss, count = evaluate(parameters, place_rows(jax.tree.map(lambda leaf: leaf[here], rows), mesh))
        total, weight = total + float(loss), weight + float(count)
    return total / weight


def save_policy(model: nnx.Module, folder: Path, tokenizer: Path) -> None:
    """Writes the model and its tokenizer as one Hugging Face directory."""
    if is_main():
        folder.mkdir(parents=True, exist_ok=True)
        for path in tokenizer.iterdir():
            shutil.copyfile(path, folder / path.name)
    save_hf(model, folder)
