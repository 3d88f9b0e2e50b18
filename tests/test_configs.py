"""Every configuration file of the repository parses, states only what differs, and says how it is run."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from mlagent_jax.configuration.loading import keys, load_config, merge, read_layers, to_dict
from mlagent_jax.configuration.schema import Config, Model
from mlagent_jax.model.build import model_config
from mlagent_jax.model.sizes import checkpoint_config
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.training.optimizer import make_optimizer
from tasks.registry import PAPER, entries

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
QWEN_7B = Model(
    path=None,
    num_layers=28,
    hidden_size=3584,
    num_heads=28,
    num_kv_heads=4,
    intermediate_size=18944,
    rope_theta=1e6,
    tie_word_embeddings=False,
)
SMOLLM2 = replace(
    QWEN_7B,
    num_layers=30,
    hidden_size=576,
    num_heads=9,
    num_kv_heads=3,
    intermediate_size=1536,
    rope_theta=1e5,
    tie_word_embeddings=True,
)
QWEN_CODER_HALF_B = replace(
    QWEN_7B,
    num_layers=24,
    hidden_size=896,
    num_heads=14,
    num_kv_heads=2,
    intermediate_size=4864,
    tie_word_embeddings=True,
)
# The released checkpoints whose sizes the files leave to `model.path`.
CHECKPOINTS = {
    "models/Qwen2.5-7B": (QWEN_7B, 152064),
    "models/Qwen2.5-Coder-0.5B-Instruct": (QWEN_CODER_HALF_B, 151936),
    "models/SmolLM2-135M-Instruct": (SMOLLM2, 49152),
}
# What each of configs/ablations changes in the quickstart, besides the run directory.
ABLATIONS = {
    "episode_wise": {
        "ppo.episodes": True,
        "ppo.states": "expert",
        "ppo.trajectories_per_update": 6,
        "ppo.states_per_trajectory": 1,
    },
    "no_ideas": {"ideas.source": "none", "sft.num_epochs": 2.0, "sft.max_steps": 436},
    "no_ml_reward": {"reward.performance": "binary", "reward.format_penalty": False, "reward.corner_cases": False},
}


def leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by dotted name."""
    found = {}
    for key, value in tree.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def settings(config: Config) -> dict[str, object]:
    tree = to_dict(config)
    return {key.name: reduce(getitem, key.name.split("."), tree) for key in keys()}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_states_only_what_differs_from_its_base_or_the_defaults(path: Path) -> None:
    *base, stated = read_layers(path)
    tree = reduce(merge, base, to_dict(Config()))
    if stated.get("model", {}).get("path") is not None:
        tree = merge(tree, {"model": {"path": "another"}})  # under which no sizes of the base hold
    below = leaves(tree)
    assert {name: value for name, value in leaves(stated).items() if value == below[name]} == {}


def test_every_deviation_of_the_quickstart_has_a_reason() -> None:
    lines = (ROOT / "configs/quickstart.yaml").read_text().splitlines()
    key = re.compile(r" *\w+:")
    missing = [line for line in lines if key.match(line) and not line.endswith(":") and not re.search(r" # \w", line)]
    assert missing == []
    sections = {line[:-1] for line in lines if re.fullmatch(r"\w+:", line)}
    assert sections <= set(to_dict(Config()))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_first_line_is_the_command_that_runs_it(path: Path) -> None:
    assert path.read_text().splitlines()[0] == f"# mlagent train --config {path.relative_to(ROOT)}"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_model_and_optimizer_of_every_config_build_without_memory(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    if config.model.num_layers is None:
        assert config.model.path is not None
        model, vocab_size = CHECKPOINTS[config.model.path]
        released = model_config(model, vocab_size, 2, config.server.max_model_len)
        (tmp_path / "config.json").write_text(json.dumps(released.to_hf("bfloat16")))
        shape = checkpoint_config(replace(config.model, path=str(tmp_path)), config.tokenizer.vocab_size, config.mesh)
    else:
        assert config.tokenizer.vocab_size is not None
        shape = model_config(config.model, config.tokenizer.vocab_size, 2, config.server.max_model_len)
    model = nnx.eval_shape(lambda: Transformer(shape, nnx.Rngs(0), jnp.dtype(config.model.dtype)))
    parameters = nnx.state(model, nnx.Param)
    num_parameters = sum(leaf.size for leaf in jax.tree.leaves(parameters))
    if path.stem.startswith(("qwen2_5_7b", "paper")):
        assert num_parameters == 7_615_616_512  # that of the released checkpoint
    for rate in (config.sft.learning_rate, config.ppo.learning_rate, config.ppo.critic_learning_rate):
        moments = jax.eval_shape(make_optimizer("adamw", rate, 1.0).init, parameters)
        assert sum(leaf.size for leaf in jax.tree.leaves(moments)) >= 2 * num_parameters


def test_default_tasks_are_the_papers() -> None:
    found = {(entry.name, entry.split) for entry in entries().values() if entry.folder.parent == PAPER}
    assert len(found) == 19
    paper = settings(Config())
    assert found == {(name, split) for split in ("held_in", "held_out") for name in paper[f"tasks.{split}"]}


def test_default_hyperparameters_are_the_papers() -> None:
    config = Config()
    collect, sft, ppo, evaluate = config.collect, config.sft, config.ppo, config.evaluate
    assert (collect.num_trajectories, collect.max_steps, collect.max_minutes) == (10_000, 15, 30.0)
    assert (sft.learning_rate, sft.batch_size, sft.num_epochs, sft.max_length) == (2e-5, 64, 2.0, 15_000)
    assert (sft.optimizer, sft.warmup_steps, sft.adam_b2, sft.patience) == ("adamw", 0, 0.999, None)
    assert (ppo.learning_rate, ppo.critic_learning_rate, ppo.kl_coefficient) == (1e-6, 1e-5, 0.001)
    assert ppo.trajectories_per_update * ppo.states_per_trajectory * ppo.samples_per_state == 256
    assert (ppo.num_updates, ppo.num_epochs, ppo.num_minibatches, ppo.temperature) == (39, 1, 1, 1.0)
    assert ppo.adam_b2 == 0.999
    assert (ppo.clip, ppo.value_clip, ppo.gamma, ppo.lam, ppo.clip_norm) == (0.2, 0.5, 1.0, 1.0, 1.0)
    assert (ppo.reward_clip, ppo.max_update_kl) == (None, None)
    assert (config.reward.version, evaluate.num_trajectories, evaluate.max_steps) == ("v2", 8, 15)
    assert (config.expert.model, config.coder.model) == ("gpt-4o-mini", "Qwen/Qwen2.5-Coder-32B-Instruct")


def test_the_papers_file_only_describes_its_machines_and_counts_unmade_edits_as_errors() -> None:
    paper, default = settings(load_config(ROOT / "configs/paper_7b.yaml")), settings(Config())
    changed = {key for key in paper if paper[key] != default[key]}
    machines = {"executor.slots", "mesh.fsdp", "server.address"}
    batches = {"sft.rows_per_micro_batch", "ppo.rows_per_micro_batch"}
    assert changed == machines | batches | {"run_dir", "reward.coder_failures"}


def test_each_ablation_is_the_quickstart_but_for_what_it_is_named_for() -> None:
    found = {}
    for path in (path for path in CONFIGS if path.parent.name == "ablations"):
        quickstart = settings(load_config())
        found[path.stem] = {
            key: value for key, value in settings(load_config(path)).items() if value != quickstart[key]
        }
    assert found == {name: {"run_dir": f"runs/{name}", **changed} for name, changed in ABLATIONS.items()}


def test_every_key_has_a_meaning() -> None:
    for key in keys():
        assert key.meaning.endswith("."), key
