"""The stage `sft`: exploration-enriched fine-tuning on the selected trajectories."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlagent_jax.configuration.schema import Adapter, Config, ConfigError
from mlagent_jax.multihost import distributed
from mlagent_jax.stages.stage import Stage, StageContext, keep_compiled_programs
from rollout.dataset.selection import Selection, choose, read_selection, write_selection
from rollout.inference.canary import MAX_TOKENS
from rollout.scripted.wording import reword_response
from rollout.storage.digests import require_trajectories, write_digests
from rollout.storage.run_layout import SELECTION, TOKENIZER, RunLayout
from rollout.storage.run_layout import SFT as OUTPUT
from rollout.tokenizer.beside_weights import files_beside_weights
from rollout.tokenizer.chat import ChatTokenizer
from rollout.types import Trajectory
from tasks.feedback import Outcome
from tasks.registry import entries
from tasks.state import State


class FineTune(Stage):
    """Fine-tune the policy on the trajectories that are selected from the collection."""

    name = "sft"
    settings = ("seed", "prompt", "select", "tokenizer", "model", "adapter", "optimizer_state.dtype", "sft")
    version = 2  # since then, sft.batch_size counts trajectories
    after = ("collect",)
    outputs = (SELECTION, TOKENIZER, OUTPUT)

    def check(self, config: Config) -> None:
        """Check all of the checkpoint at `model.path` but the values of its weights, before hours of collecting."""
        if config.sft_adapter.rank is not None and config.model.path is None:
            raise ConfigError(
                f"adapter.rank={config.adapter.rank} trains an adapter of a checkpoint, but model.path=null starts "
                "from random weights; set adapter.rank=null, adapter.first_stage=ppo, or model.path"
            )
        if config.adapter.path is not None:
            check_shape(config.adapter, Path(config.adapter.path))
        if config.model.path is not None:
            from mlagent_jax.model.hf import check_hf
            from mlagent_jax.model.sizes import checkpoint_config, require_rows

            folder = Path(config.model.path)
            checkpoint = checkpoint_config(config.model, config.tokenizer.vocab_size, config.mesh)
            check_hf(folder)
            files_beside_weights(folder)
            require_rows(folder, checkpoint.vocab_size, ChatTokenizer(folder, config.system_text).vocab_size)

    def run(self, context: StageContext) -> dict[str, Any]:
        """Write `selection.json`, `tokenizer/` and `sft/model/`; return the figures of the training.

        Raises:
            CorruptRecord: If a trajectory file is damaged.
            ValueError: If too few trajectories are selected, or the model does not fit the configuration.
        """
        require_trajectories(context.run_dir)
        distributed.announce_stage(self.name)
        return train_policy(context)

    def follow(self, context: StageContext) -> None:
        """Train together with process 0."""
        train_policy(context)


STAGE = FineTune()


def check_shape(settings: Adapter, path: Path) -> None:
    """Check that the adapter to go on from, at `path`, is a saved one of the configured shape.

    Raises:
        ConfigError: If it is another one.
        FileNotFoundError: If there is none.
        ValueError: If it cannot be applied.
    """
    from mlagent_jax.model.build import adapter_shape
    from mlagent_jax.model.hf.peft import read_adapter

    found, expected = read_adapter(path), adapter_shape(settings)
    if found != expected:
        raise ConfigError(
            f"adapter.path={path} has rank {found.rank}, alpha {found.alpha!r} and the matrices "
            f"{', '.join(found.matrices)}; set adapter.rank, adapter.alpha and adapter.targets to these, where targets "
            "are those of attention, of mlp or all"
        )


def train_policy(context: StageContext) -> dict[str, Any]:
    """Fine-tune the policy, save it, and return the figures; every process calls this."""
    from mlagent_jax.model.build import build_model
    from mlagent_jax.model.sharding import count_values, frozen_of, make_mesh, parameters_of
    from mlagent_jax.sft.inputs import load_data, make_tokenizer, wordings_of
    from mlagent_jax.sft.loop import fine_tune
    from mlagent_jax.training.checkpoint import Checkpoints
    from mlagent_jax.training.saved_policy import save_canary, save_policy

    config, run_dir = context.config, context.run_dir
    keep_compiled_programs(run_dir)
    began = time.monotonic()
    selection = distributed.from_main(
        lambda: select(config, run_dir), encode=lambda _: None, decode=lambda _: read_selection(run_dir.selection)
    )
    trajectories = list(selection.read(run_dir.trajectories))
    reword = reword_response if config.expert.kind == "scripted" else None
    wordings = wordings_of(trajectories, config.sft.wordings, config.seed, reword)
    checkpoint = None if config.model.path is None else Path(config.model.path)
    system = config.system_text
    tokenizer = distributed.from_main(
        lambda: make_tokenizer(run_dir.tokenizer, system, wordings, config.tokenizer.vocab_size, checkpoint),
        encode=lambda _: None,
        decode=lambda _: ChatTokenizer(run_dir.tokenizer, system),
    )
    is_validation = [trajectory.trajectory_id in selection.validation for trajectory in trajectories]
    data = load_data(config.sft, config.seed, tokenizer, wordings, is_validation)
    mesh = make_mesh(**asdict(config.mesh))
    model = build_model(config.model, config.sft_adapter, tokenizer, mesh, config.seed, config.server.max_model_len)
    distributed.meet()
    canary_ids = tokenizer.prompt_ids(State(trajectories[0].problem))[:MAX_TOKENS]
    if checkpoint is not None:  # the stage evaluate may serve it
        save_canary(model, run_dir.pretrained_canary, canary_ids)
    with (
        Checkpoints(run_dir.sft_checkpoints, saved=run_dir.sync_remote) as checkpoints,
        context.open_tracker() as tracker,
    ):
        figures = fine_tune(
            model, data, config.sft, config.optimizer_state, mesh, checkpoints, tracker, context.reporter
        )
    save_policy(model, run_dir.sft_policy, run_dir.tokenizer, run_dir.selection, canary_ids, config.model.path)
    if distributed.is_main():
        write_digests(run_dir.tokenizer)
    return {
        **data_figures(selection, trajectories),
        "parameters": count_values((parameters_of(model), frozen_of(model))),
        "trained_parameters": count_values(parameters_of(model)),
        "vocabulary": tokenizer.vocab_size,
        "num_sequences": len(data.train.sizes),
        "cut_sequences": data.train.num_cut,
        "unused_sequences": data.train.num_unused,
        **figures,
        "training_seconds": round(time.monotonic() - began, 1),
    }


def data_figures(selection: Selection, trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    """Return the figures of the trajectories that were selected to train on."""
    steps = [step for trajectory in trajectories for step in trajectory.steps]
    return {
        "trajectories": len(trajectories),
        "num_read": len(trajectories) + sum(each["dropped"] for each in selection.report),
        "num_responses": len(steps),
        "num_invalid": sum(step.feedback.outcome is Outcome.INVALID for step in steps),
        "dropped_trajectories": {each["filter"]: each["dropped"] for each in selection.report},
        "training_data": selection.identity,
    }


def select(config: Config, layout: RunLayout) -> Selection:
    """Select the trajectories to train on, write `selection.json`, and return the selection.

    Raises:
        CorruptRecord: If a trajectory file is damaged.
        ValueError: If too few are left.
    """
    directions = {name: entry.direction for name, entry in entries(config.tasks.paths).items()}
    selection = choose(layout.trajectories, config.select, directions, config.seed)
    write_selection(layout.selection, selection, config.select, config.seed)
    return selection
