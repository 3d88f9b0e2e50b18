"""Build the jitted programs of a training run and their abstract arguments, with the functions that training uses."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import PyTree

from mlagent_jax.configuration.schema import PPO, SFT, OptimizerState
from mlagent_jax.model.packed_batch import PackedBatch, RowBuilder, stack_rows
from mlagent_jax.model.placement import abstract_batch, num_shards
from mlagent_jax.model.sharding import (
    NOTHING,
    count_values,
    frozen_of,
    parameter_name,
    parameter_shardings,
    parameters_of,
)
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.model.value import frozen_copy, separate_critic
from mlagent_jax.ppo.batch import Packed, PPOBatch, batch_shape_for, stack_packed
from mlagent_jax.ppo.learner import LearnerState, make_networks, ppo_optimizers, trained_network
from mlagent_jax.sft.configured import configured_eval, configured_step, padded_rows, sft_optimizer
from mlagent_jax.sft.data import Dataset, batch_shape_of
from mlagent_jax.sft.packing import Size
from mlagent_jax.training.train_state import abstract_state
from rollout.tokenizer.chat import Rendering

FORWARD, TRAINING = 2, 6  # model FLOPs per parameter and token: a multiply-add, and two more in the backward pass
FROZEN = 4  # of which a frozen one has no gradient of its own
LENGTH_KEYS = ("sft.max_length", "ppo.row_length")
NUM_STEPS = 1000  # steps of the learning-rate schedule; the cost of a program does not depend on it


@dataclass(frozen=True)
class Program:
    """One compiled function of a run and its arguments.

    Attributes:
        name: The name in the report.
        function: The jitted function.
        arguments: The shapes, types and shardings of its arguments.
        resident: Arrays that stay on the chips while it runs and are not arguments.
        moments: The optimizer state among the arguments and the resident arrays.
        critic: The critic among them, if it is a network of its own.
        model_flops: The FLOPs of one call on all chips, without recomputation.
        rows_key: The setting of the number of rows per call, or of their length if a chip has a single row; None for a
            program that takes no rows.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[PyTree, ...]
    resident: PyTree
    model_flops: float
    rows_key: str | None
    moments: PyTree = ()
    critic: PyTree = ()


def sft_programs(model: Transformer, sft: SFT, optimizer_state: OptimizerState, mesh: Mesh) -> list[Program]:
    """Return the fine-tuning step and the evaluation, next to which the best parameters so far are resident.

    Args:
        model: An abstract network; see `abstract_model`.
        sft: The SFT section of the configuration.
        optimizer_state: The optimizer-state section.
        mesh: The devices that the program is compiled for.
    """
    optimizer = sft_optimizer(sft, optimizer_state, NUM_STEPS)
    state = abstract_state(model, optimizer, mesh, optimizer_state.offload)
    batch = sft_batch(sft, mesh)
    num_rows = len(batch.tokens)
    step = configured_step(sft, num_rows, nnx.split(model)[0], optimizer, state)
    training, forward = (model_flops(model, batch, passes) for passes in (TRAINING, FORWARD))
    best, placed, moments = state.parameters, abstract_batch(batch, mesh), state.optimizer
    evaluate = configured_eval(sft, num_rows, nnx.split(model)[0])
    key = "sft.rows_per_micro_batch" if sft.rows_per_micro_batch else "sft.batch_size"
    if (sft.rows_per_micro_batch or num_rows) == num_shards(mesh):
        key = "sft.max_length"
    frozen = abstract_frozen(model, mesh)
    return [
        Program("sft step", step, (state, placed, frozen), best, training, key, moments),
        Program("sft evaluation", evaluate, (best, placed, frozen), (best, moments), forward, key, moments),
    ]


def ppo_programs(model: Transformer, ppo: PPO, optimizer_state: OptimizerState, mesh: Mesh) -> list[Program]:
    """Return scoring, gradients and optimizer step of policy and critic.

    Policy, critic and the reference are always on the chips, their common frozen base if they are adapters, and the
    policy before the update if its KL is limited. The gradient program adds the gradients of one more micro-batch to an
    array that has the shape of the parameters.

    Args:
        model: An abstract network; see `abstract_model`.
        ppo: The PPO section of the configuration.
        optimizer_state: The optimizer-state section.
        mesh: The devices that the programs are compiled for.
    """

    def abstract(make: Callable[[Transformer], nnx.Module]) -> nnx.Module:
        return nnx.eval_shape(lambda: make(nnx.merge(*nnx.split(model))))

    def abstract_state_of(network: nnx.Module, optimizer: optax.GradientTransformation) -> Any:
        return abstract_state(network, optimizer, mesh, optimizer_state.offload)

    policy = abstract(lambda model: trained_network(ppo, model))
    critic = abstract(separate_critic) if ppo.has_own_critic else None
    policy_optimizer, critic_optimizer = ppo_optimizers(ppo, optimizer_state)
    policy_state = abstract_state_of(policy, policy_optimizer)
    critic_state = abstract_state_of(critic, critic_optimizer) if critic else None
    graphs = nnx.split(policy)[0], nnx.split(critic)[0] if critic else None
    frozen = abstract_frozen(policy, mesh), abstract_frozen(critic, mesh) if critic else NOTHING
    networks = make_networks(ppo, optimizer_state, *graphs, LearnerState(policy_state, critic_state), *frozen)
    reference = jax.eval_shape(partial(frozen_copy, dtype=model.dtype), policy_state.parameters)
    reference = jax.tree.map(lambda leaf, like: leaf.update(sharding=like.sharding), reference, policy_state.parameters)
    moments = (policy_state.optimizer, critic_state.optimizer if critic_state else ())
    before = () if ppo.max_update_kl is None else policy_state.parameters  # the policy before the update
    kept, batch = (reference, before), ppo_batch(ppo)
    placed = abstract_batch(batch, mesh)
    num_tokens, is_first = jax.ShapeDtypeStruct((), jnp.float32), jax.ShapeDtypeStruct((), jnp.bool_)
    programs: list[Program] = []
    for name, network, own, other in (
        ("policy", networks[0], policy_state, critic_state),
        ("critic", networks[1], critic_state, policy_state),
    ):
        if network is None or own is None:
            continue
        forward, training = (model_flops(model, batch.rows, passes, name == "policy") for passes in (FORWARD, TRAINING))
        parameters, base = own.parameters, network.frozen
        resident = own.optimizer, other, kept, _head_of(frozen[0]) if name == "critic" else ()
        key = "ppo.row_length" if ppo.rows_per_micro_batch == num_shards(mesh) else "ppo.rows_per_micro_batch"
        arguments = (parameters, parameters, placed, num_tokens, is_first, base)
        found = [
            Program(f"{name} score", network.score, (parameters, placed.rows, base), resident, forward, key),
            Program(f"{name} gradients", network.add_gradients, arguments, resident, training, key),
            Program(f"{name} apply", network.apply, (own, parameters), (other, kept, frozen[0]), 0.0, None),
        ]
        programs += [replace(program, moments=moments, critic=critic_state or ()) for program in found]
    return programs


def abstract_frozen(network: nnx.Module, mesh: Mesh) -> PyTree:
    """Return the frozen weights of an abstract network with their shardings."""
    frozen = frozen_of(network)
    return jax.tree.map(lambda leaf, to: leaf.update(sharding=to), frozen, parameter_shardings(frozen, mesh))


def _head_of(frozen: PyTree) -> PyTree:
    """Return the frozen output head of its own, which a critic on the same base does not use."""
    flat = jax.tree_util.tree_leaves_with_path(frozen)
    return [leaf for path, leaf in flat if parameter_name(path) == "lm_head"]


def sft_batch(sft: SFT, mesh: Mesh) -> PackedBatch:
    """Return a batch with the largest possible numbers of rows, one for each trajectory, and predictions.

    The data of a run has fewer of both.
    """
    row = full_row(sft.max_length)
    dataset = Dataset(lambda index: Rendering([], []), (Size(sft.max_length, len(row.targets), False),), ((0,),))
    shape = batch_shape_of([dataset], sft.max_length)
    return stack_rows(
        [row, *(RowBuilder() for _ in range(padded_rows(sft, sft.batch_size, mesh) - 1))],
        shape.length,
        shape.num_predictions,
    )


def full_row(length: int) -> RowBuilder:
    """Return a row in which every token but the first is predicted."""
    row = RowBuilder()
    row.add([0] * length)
    for index in range(length - 1):
        row.predict(index, 0)
    return row


def ppo_batch(ppo: PPO) -> PPOBatch:
    """Return a micro-batch of empty rows, which has the shape of all micro-batches."""
    packed = Packed((RowBuilder(),), ())
    (rows,) = stack_packed(packed, batch_shape_for(ppo), ppo.rows_per_micro_batch)
    return PPOBatch(rows, *(np.zeros_like(rows.weights) for _ in range(6)))


def model_flops(model: Transformer, batch: PackedBatch, passes: int, with_head: bool = True) -> float:
    """Return the FLOPs that the model itself needs for a batch, as in arXiv 2204.02311, appendix B.

    passes * (matmul parameters of the layers * tokens + those of the head * predictions + L T N H * tokens), where the
    last term is attention under a causal mask: 2 * 2 T N H FLOPs per token and layer in a forward pass, of which half
    are masked. Padding counts as tokens. The backward pass needs one product with a frozen matrix, not two.

    Args:
        model: The network, which may be abstract.
        batch: The batch, of which only the shapes matter.
        passes: 2 for a forward pass, 6 for forward and backward.
        with_head: False for a critic, whose head is a vector.
    """
    config = model.config
    n, k, h, d, f = config.num_heads, config.num_kv_heads, config.head_dim, config.hidden_size, config.intermediate_size
    layers = config.num_layers * (2 * d * n * h + 2 * d * k * h + 3 * d * f)
    head = config.vocab_size * d if with_head else 0
    b, t = batch.tokens.shape
    attention = config.num_layers * t * n * h
    adapter, of_base = 0, passes
    if model.layers.adapter is not None:
        adapter, of_base = count_values(parameters_of(model)), min(passes, FROZEN)
    return float(passes * (adapter + attention) * b * t + of_base * (layers * b * t + head * batch.targets.size))
