"""The programs that are compiled ahead of time are those of training, with the shardings of its arrays."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import PyTree

from mlagent_jax.aot import programs
from mlagent_jax.aot.programs import FORWARD, TRAINING, model_flops, ppo_batch, ppo_programs, sft_batch, sft_programs
from mlagent_jax.aot.shards import shard_bytes
from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import Config, Tokenizer
from mlagent_jax.configuration.schema import Mesh as MeshShape
from mlagent_jax.model.adapter import add_adapter, freeze
from mlagent_jax.model.build import abstract_model, adapter_shape, model_config
from mlagent_jax.model.placement import abstract_batch, place_batch
from mlagent_jax.model.sharding import frozen_of, make_mesh, parameter_shardings
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.model.value import Critic
from mlagent_jax.ppo.learner import Learner
from mlagent_jax.sft import loop
from mlagent_jax.sft.data import Dataset, batch_shape_of
from mlagent_jax.sft.inputs import Data
from mlagent_jax.sft.packing import Size
from mlagent_jax.tracking.base import NoTracker
from mlagent_jax.tracking.progress import Reporter
from mlagent_jax.training.checkpoint import Checkpoints
from mlagent_jax.training.optimizer import make_optimizer
from mlagent_jax.training.train_state import abstract_state, make_state
from rollout.tokenizer.chat import Rendering

QUICKSTART = load_config(None, ["ppo.advantage=gae"])
CONFIG = replace(
    QUICKSTART,
    tokenizer=Tokenizer(vocab_size=64),
    model=replace(QUICKSTART.model, num_layers=2, hidden_size=32, num_heads=4, num_kv_heads=2, intermediate_size=48),
    mesh=MeshShape(fsdp=4, tensor=2),
    sft=replace(QUICKSTART.sft, max_length=32, batch_size=8, rows_per_micro_batch=4),
    ppo=replace(QUICKSTART.ppo, row_length=32, rows_per_micro_batch=4, max_response_tokens=8),
)
ADAPTED = replace(CONFIG, adapter=replace(CONFIG.adapter, rank=4), sft=replace(CONFIG.sft, optimizer="adamw"))


class Compiled(Exception):
    """Raised when training makes its step."""


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return make_mesh(1, 4, 2, 1)


def abstract(config: Config, mesh: Mesh) -> Transformer:
    shape = model_config(config.model, config.tokenizer.vocab_size, 0, config.sft.max_length)
    return abstract_model(shape, config.model, mesh, config.adapter)


def fresh(config: Config, mesh: Mesh) -> Transformer:
    made, shape = Transformer(abstract(config, mesh).config, nnx.Rngs(0), mesh=mesh), adapter_shape(config.adapter)
    return made if shape is None else add_adapter(freeze(made), shape, 0)


def described(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.sharding), tree)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_abstract_state_is_that_of_training_without_its_arrays(mesh: Mesh, kind: Literal["adamw", "muon"]) -> None:
    optimizer = make_optimizer(kind, 1e-3, 1.0)
    real = make_state(fresh(CONFIG, mesh), optimizer, mesh)
    state = abstract_state(abstract(CONFIG, mesh), optimizer, mesh)
    assert described(state) == described(real)
    assert shard_bytes(state)[0] == sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(real))


def test_abstract_batch_is_that_of_training_without_its_arrays(mesh: Mesh) -> None:
    batch = ppo_batch(CONFIG.ppo)
    assert described(abstract_batch(batch, mesh)) == described(place_batch(batch, mesh))


def test_fine_tuning_compiles_the_step_that_training_makes(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[Any] = []

    def spy(*arguments: Any) -> Any:
        made.extend((configured_step(*arguments), arguments[-1]))
        raise Compiled

    configured_step = loop.configured_step
    monkeypatch.setattr(loop, "configured_step", spy)
    monkeypatch.setattr(programs, "NUM_STEPS", 1)
    length = CONFIG.sft.max_length
    data = Dataset(lambda index: Rendering([], []), (Size(length, length - 1, False),), ((0,),))
    rows = Data(data, data, batch_shape_of([data], length))
    settings = CONFIG.sft, CONFIG.optimizer_state
    with pytest.raises(Compiled), Checkpoints(tmp_path / "checkpoints") as checkpoints:
        loop.fine_tune(fresh(CONFIG, mesh), rows, *settings, mesh, checkpoints, NoTracker(), Reporter())
    step, state = made
    program, _ = sft_programs(abstract(CONFIG, mesh), CONFIG.sft, CONFIG.optimizer_state, mesh)
    text = program.function.lower(*program.arguments).as_text()  # pyright: ignore[reportFunctionMemberAccess]
    assert text == step.lower(state, place_batch(sft_batch(CONFIG.sft, mesh), mesh)).as_text()


@pytest.mark.parametrize("config", [CONFIG, ADAPTED], ids=["full", "adapters"])
def test_ppo_compiles_the_functions_that_the_learner_runs(config: Config, mesh: Mesh) -> None:
    learner = Learner(fresh(config, mesh), Critic(fresh(config, mesh)), config.ppo, mesh, config.optimizer_state)
    arguments = place_batch(ppo_batch(config.ppo), mesh), jax.numpy.float32(1.0), jax.numpy.bool_(True)
    lowered: dict[str, Any] = {}
    for name, network, state in (
        ("policy", learner.policy, learner.state.policy),
        ("critic", learner.critic, learner.state.critic),
    ):
        parts: Any = (network.score, network.add_gradients, network.apply)
        frozen = jax.device_put(network.frozen, parameter_shardings(network.frozen, mesh))
        lowered[f"{name} score"] = parts[0].lower(state.parameters, arguments[0].rows, frozen)
        lowered[f"{name} gradients"] = parts[1].lower(state.parameters, state.parameters, *arguments, frozen)
        lowered[f"{name} apply"] = parts[2].lower(state, state.parameters)
    found = ppo_programs(abstract(config, mesh), config.ppo, config.optimizer_state, mesh)
    assert {program.name for program in found} == set(lowered)
    for program in found:
        function: Any = program.function
        assert function.lower(*program.arguments).as_text() == lowered[program.name].as_text(), program.name


@pytest.mark.parametrize("tied", [True, False])
def test_the_base_of_all_adapters_is_in_memory_once(mesh: Mesh, tied: bool) -> None:
    config = replace(ADAPTED, model=replace(ADAPTED.model, tie_word_embeddings=tied))
    model = abstract(config, mesh)
    base = [leaf.shape for leaf in jax.tree.leaves(frozen_of(model)) if leaf.ndim > 1]
    assert base.count((64, 32)) == (1 if tied else 2)  # embedding, head
    found = sft_programs(model, config.sft, config.optimizer_state, mesh)
    found += ppo_programs(model, config.ppo, config.optimizer_state, mesh)
    assert len(found) == 8
    for program in found[2:]:
        held = [leaf.shape for leaf in jax.tree.leaves((program.arguments, program.resident))]
        assert [held.count(shape) for shape in base] == [base.count(shape) for shape in base], program.name


@pytest.mark.parametrize("change", [{"advantage": "group"}, {"critic": "shared"}])
def test_without_a_critic_of_its_own_only_the_policy_learns(mesh: Mesh, change: dict[str, Any]) -> None:
    programs = ppo_programs(abstract(CONFIG, mesh), replace(CONFIG.ppo, **change), CONFIG.optimizer_state, mesh)
    assert [program.name for program in programs] == ["policy score", "policy gradients", "policy apply"]


@pytest.mark.parametrize("num_layers", [2, 28])
def test_model_flops_are_six_for_each_parameter_of_a_product_and_token(mesh: Mesh, num_layers: int) -> None:
    config = replace(CONFIG, model=replace(CONFIG.model, num_layers=num_layers))
    model, rows = abstract(config, mesh), sft_batch(config.sft, mesh)
    leaves = jax.tree_util.tree_leaves_with_path(nnx.state(model, nnx.Param))
    sizes = {jax.tree_util.keystr(path): leaf.size for path, leaf in leaves}
    in_products = sum(size for path, size in sizes.items() if "proj" in path or "embed_tokens" in path)  # a tied head
    b, t = 8, 32
    assert rows.targets.shape == (b, 64)  # more than t - 1: a bucket holds a multiple of 64
    attention = 6 * num_layers * t * 4 * 8 * b * t
    head = sizes["['embed_tokens'].value" if "['embed_tokens'].value" in sizes else "['embed_tokens']"]
    expected = 6 * ((in_products - head) * b * t + head * rows.targets.size) + attention
    np.testing.assert_allclose(model_flops(model, rows, TRAINING), expected, rtol=1e-12)
    np.testing.assert_allclose(model_flops(model, rows, FORWARD), expected / 3, rtol=1e-12)
    without = model_flops(model, rows, TRAINING) - model_flops(model, rows, TRAINING, with_head=False)
    assert without == 6 * head * rows.targets.size
