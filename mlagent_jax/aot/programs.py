"""The programs that a configuration's training runs, by the functions that training itself makes them with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import PyTree

from mlagent_jax.configuration.schema import Config
from mlagent_jax.model.build import abstract_model
from mlagent_jax.model.packed_batch import PackedBatch, RowBuilder, stack_rows
from mlagent_jax.model.placement import abstract_batch
from mlagent_jax.model.qwen2 import Qwen2
from mlagent_jax.model.value import Critic
from mlagent_jax.ppo.batch import Packed, PPOBatch, batch_shape_for, stack_packed
from mlagent_jax.ppo.learner import LearnerState, has_own_critic, make_networks, ppo_optimizers, trained_network
from mlagent_jax.sft.data import Dataset, batch_shape_of
from mlagent_jax.sft.loop import configured_step, sft_optimizer
from mlagent_jax.sft.packing import Size
from mlagent_jax.training.train_state import abstract_state
from rollout.tokenizer.chat import Rendering

FORWARD, TRAINING = 2, 6  # FLOPs of the model for each parameter and token: a multiply-add, and two more backward
NUM_STEPS = 1000  # of the learning rate's schedule, on which no program's cost depends


@dataclass(frozen=True)
class Program:
    """One compiled function of a run and what it is called with.

    Attributes:
        function: jitted.
        arguments: shapes, types and shardings.
        beside: arrays that lie on the chips while it runs and are none of its arguments.
        model_flops: of one call on all chips, recomputation not counted.
        rows_key: the setting that says how many rows it works on at one time, None where it works on none.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[PyTree, ...]
    beside: PyTree
    model_flops: float
    rows_key: str | None


def sft_programs(config: Config, mesh: Mesh) -> list[Program]:
    """Return the fine-tuning step; it runs beside the best parameters so far."""
    model, sft = abstract_model(config, mesh), config.sft
    optimizer = sft_optimizer(config, NUM_STEPS)
    state = abstract_state(model, optimizer, mesh, config.optimizer_state.offload)
    rows = sft_rows(config)
    step = configured_step(sft, nnx.split(model)[0], optimizer, state)
    flops = model_flops(model, rows, TRAINING)
    key = "sft.rows_per_micro_batch" if sft.rows_per_micro_batch else "sft.batch_size"
    return [Program("sft step", step, (state, abstract_batch(rows, mesh)), state.parameters, flops, key)]


def ppo_programs(config: Config, mesh: Mesh) -> list[Program]:
    """Return scoring, gradients and optimizer step of policy and critic.

    Policy, critic and the reference are on the chips all the time. To the gradients of the micro-batches before, which
    are shaped like the parameters, a program adds those of one more.
    """
    model, ppo, kept = abstract_model(config, mesh), config.ppo, config.optimizer_state

    def abstract(make: Callable[[Qwen2], nnx.Module]) -> nnx.Module:
        return nnx.eval_shape(lambda: make(nnx.merge(*nnx.split(abstract_model(config, mesh)))))

    policy = abstract(lambda model: trained_network(ppo, model))
    critic = abstract(Critic) if has_own_critic(ppo) else None
    policy_optimizer, critic_optimizer = ppo_optimizers(ppo, kept)
    policy_state = abstract_state(policy, policy_optimizer, mesh, kept.offload)
    critic_state = abstract_state(critic, critic_optimizer, mesh, kept.offload) if critic else None
    graphs = nnx.split(policy)[0], nnx.split(critic)[0] if critic else None
    networks = make_networks(ppo, kept, *graphs, LearnerState(policy_state, critic_state))
    reference, batch = policy_state.parameters, ppo_batch(config)
    placed = abstract_batch(batch, mesh)
    num_tokens = jax.ShapeDtypeStruct((), jnp.float32)
    found: list[Program] = []
    for name, network, own, other in (
        ("policy", networks[0], policy_state, critic_state),
        ("critic", networks[1], critic_state, policy_state),
    ):
        if network is None or own is None:
            continue
        needed = [model_flops(model, batch.rows, passes, name == "policy") for passes in (FORWARD, TRAINING)]
        parameters, beside = own.parameters, (own.optimizer, other, reference)
        key = "ppo.rows_per_micro_batch"
        arguments = (parameters, parameters, placed, num_tokens)
        found += [
            Program(f"{name} score", network.score, (parameters, placed.rows), beside, needed[0], key),
            Program(f"{name} gradients", network.add_gradients, arguments, beside, needed[1], key),
            Program(f"{name} apply", network.apply, (own, parameters), (other, reference), 0.0, None),
        ]
    return found


def sft_rows(config: Config) -> PackedBatch:
    """Return a batch of fine-tuning with as many predictions as there can be; data of a run have fewer."""
    length, batch_size = config.sft.max_length, config.sft.batch_size
    row = full_row(length)
    dataset = Dataset(lambda index: Rendering([], []), (Size(length, len(row.targets), False),), ((0,),))
    bucket = batch_shape_of([dataset], length)
    return stack_rows([row, *(RowBuilder() for _ in range(batch_size - 1))], bucket.length, bucket.num_predictions)


def full_row(length: int) -> RowBuilder:
    """Return a row in which every token is predicted."""
    row = RowBuilder()
    row.add([0] * length)
    for index in range(length - 1):
        row.predict(index, 0)
    return row


def ppo_batch(config: Config) -> PPOBatch:
    """Return a micro-batch of empty rows; all micro-batches have its shape."""
    packed = Packed((RowBuilder(),), ())
    (rows,) = stack_packed(packed, batch_shape_for(config.ppo), config.ppo.rows_per_micro_batch)
    return PPOBatch(rows, *(np.zeros_like(rows.weights) for _ in range(6)))


def model_flops(model: Qwen2, rows: PackedBatch, passes: int, with_head: bool = True) -> float:
    """Return the FLOPs that the model itself needs for some rows, as in arXiv 2204.02311, appendix B.

    passes * (matmul parameters of the layers * tokens + those of the head * predictions + L T N H * tokens), where the
    last term is attention under a causal mask: 2 * 2 T N H FLOPs a token and layer forward, of which half are masked.
    Padding counts as tokens.

    Args:
        passes: 2 for a forward pass, 6 for forward and backward.
        with_head: False for a critic, whose head is a vector.
    """
    shape = model.config
    n, k, h, d, f = shape.num_heads, shape.num_kv_heads, shape.head_dim, shape.hidden_size, shape.intermediate_size
    layer = 2 * d * n * h + 2 * d * k * h + 3 * d * f
    head = shape.vocab_size * d if with_head else 0
    b, t = rows.tokens.shape
    attention = shape.num_layers * t * n * h
    return float(passes * ((shape.num_layers * layer + attention) * b * t + head * rows.targets.size))
