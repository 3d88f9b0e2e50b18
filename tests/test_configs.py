"""Every configuration file of the repository parses, is complete, and says how it is run."""

from functools import reduce
from operator import getitem
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import yaml
from flax import nnx

from mlagent_jax.configuration.loading import keys, load_config, to_dict
from mlagent_jax.configuration.schema import Config
from mlagent_jax.model.build import model_config
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.training.optimizer import make_optimizer
from tasks.registry import PAPER, entries

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
# What each of configs/ablations changes in the quickstart, besides the run directory.
ABLATIONS = {
    "episode_wise": {"ppo.episodes": True, "ppo.trajectories_per_update": 6, "ppo.states_per_trajectory": 1},
    "no_ideas": {"ideas.source": "none", "sft.num_epochs": 2.0, "sft.max_steps": 436},
    "no_ml_reward": {"reward.performance": "binary", "reward.format_penalty": False, "reward.corner_cases": False},
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_parses_and_leaves_no_key_out(path: Path) -> None:
    assert yaml.safe_load(path.read_text()) == to_dict(load_config(path))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_first_line_is_the_command_that_runs_it(path: Path) -> None:
    assert path.read_text().splitlines()[0] == f"# python -m mlagent_jax.train --config {path.relative_to(ROOT)}"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_model_and_optimizer_of_every_config_build_without_memory(path: Path) -> None:
    config = load_config(path)
    shape = model_config(config.model, config.tokenizer.vocab_size, 2, config.server.max_model_len)
    model = nnx.eval_shape(lambda: Transformer(shape, nnx.Rngs(0), jnp.dtype(config.model.dtype)))
    parameters = nnx.state(model, nnx.Param)
    num_parameters = sum(leaf.size for leaf in jax.tree.leaves(parameters))
    assert path.stem != "qwen2_5_7b" or num_parameters == 7_615_616_512  # that of the released checkpoint
    for rate in (config.sft.learning_rate, config.ppo.learning_rate, config.ppo.critic_learning_rate):
        moments = jax.eval_shape(make_optimizer("adamw", rate, 1.0).init, parameters)
        assert sum(leaf.size for leaf in jax.tree.leaves(moments)) >= 2 * num_parameters


def test_the_papers_configuration_is_that_of_7b_on_the_papers_tasks() -> None:
    plain, paper = (settings(load_config(ROOT / "configs" / name)) for name in ("qwen2_5_7b.yaml", "paper_7b.yaml"))
    assert {key for key in plain if plain[key] != paper[key]} == {"run_dir", "tasks.held_in", "tasks.held_out"}
    found = {(entry.name, entry.split) for entry in entries().values() if entry.folder.parent == PAPER}
    assert len(found) == 19
    assert found == {(name, split) for split in ("held_in", "held_out") for name in paper[f"tasks.{split}"]}


def test_quickstart_file_says_what_the_code_defaults_to() -> None:
    assert load_config(ROOT / "configs/quickstart.yaml") == Config()


def settings(config: Config) -> dict[str, object]:
    tree = to_dict(config)
    return {key.name: reduce(getitem, key.name.split("."), tree) for key in keys()}


def test_each_ablation_is_the_quickstart_but_for_what_it_is_named_for() -> None:
    found = {}
    for path in (path for path in CONFIGS if path.parent.name == "ablations"):
        quickstart = settings(Config())
        found[path.stem] = {
            key: value for key, value in settings(load_config(path)).items() if value != quickstart[key]
        }
    assert found == {name: {"run_dir": f"runs/{name}", **changed} for name, changed in ABLATIONS.items()}


def test_every_key_has_a_meaning() -> None:
    for key in keys():
        assert key.meaning.endswith("."), key
