"""The memory that training takes on each device, by arithmetic from the sizes of the network and the settings.

Arrays that stay between steps are counted exactly. The rest of a step (gradients, activations, logits) is an estimate;
`tests/mlagent_jax/gpus/test_memory.py` compares it with what XLA's compiler allocated.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mlagent_jax.configuration.schema import PPO, SFT, Adapter, Mesh, Model, OptimizerState
from mlagent_jax.model.config import TransformerConfig
from rollout.storage.safetensors_layout import DTYPES

BYTES: Mapping[str, int] = {dtype: size for dtype, (_, size) in DTYPES.items()}
FP32 = BYTES["float32"]
MOMENTS = 2
CHUNK = 1024 * 152_064  # logits of `mlagent_jax.model.logprob`, which imports JAX
WIDE = 4  # arrays of the width of the feed-forward layer that a layer holds at a time
COPIES = 2  # a layer's weights in use, and those of the next
SLACK = 1.1  # XLA's own buffers


@dataclass(frozen=True)
class Need:
    """The memory of one phase of training on each device, in bytes.

    Attributes:
        phase: The name of the phase.
        kept: The arrays that stay between steps, by name; exact.
        step: The further memory of a step; an estimate.
    """

    phase: str
    kept: Mapping[str, float]
    step: float

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self.kept.values()) + self.step


def count_parameters(config: TransformerConfig, with_head: bool = True) -> int:
    """Return the number of parameters; without a head of its own, that of a critic, whose head is a vector."""
    embedding = config.vocab_size * config.hidden_size
    head = embedding if with_head and not config.tie_word_embeddings else 0
    return embedding + head + config.num_layers * count_layer(config) + config.hidden_size


def count_trained(config: TransformerConfig, adapter: Adapter, with_head: bool = True) -> int:
    """Return the number of parameters that are trained: those of the adapter if there is one, or else all."""
    return round(trained_share(config, adapter, Mesh(), with_head))


def trained_share(config: TransformerConfig, adapter: Adapter, mesh: Mesh, with_head: bool = True) -> float:
    """Return the number of trained parameters on each device.

    The factor A of an adapter is sharded as its matrix's inputs are, and B as its outputs: the fsdp axis divides one of
    them, the tensor axis the other.
    """
    if adapter.rank is None:
        return count_parameters(config, with_head) / (mesh.fsdp * mesh.tensor)
    letters, ends = config.letters, 0.0
    for matrix in adapter.matrices:
        outputs, inputs = (math.prod(letters[x] for x in dim) for dim in config.layer_names[matrix][1].split(","))
        axes = (mesh.fsdp, mesh.tensor) if matrix in ("o_proj", "down_proj") else (mesh.tensor, mesh.fsdp)
        ends += outputs / axes[0] + inputs / axes[1]
    return config.num_layers * adapter.rank * ends


def frozen_bytes(config: TransformerConfig, model: Model, adapter: Adapter) -> int:
    """Return the size of the frozen weights, which all networks share; 0 if all weights are trained."""
    return 0 if adapter.rank is None else BYTES[model.dtype] * count_parameters(config)


def count_layer(config: TransformerConfig) -> int:
    """Return the number of parameters of one layer."""
    letters = config.letters
    dims = (dims.replace(",", "") for _, dims in config.layer_names.values())
    return sum(math.prod(letters[letter] for letter in tensor) for tensor in dims)


def fine_tuning(
    config: TransformerConfig, model: Model, adapter: Adapter, sft: SFT, state: OptimizerState, mesh: Mesh
) -> Need:
    """Return the memory of the stage `sft`, whose best parameters so far stay beside the newest."""
    shards = mesh.fsdp * mesh.tensor
    share = trained_share(config, adapter, mesh)
    kept = {
        "frozen base": frozen_bytes(config, model, adapter) / shards,
        "parameters": FP32 * share,
        "best parameters": FP32 * share,
        "moments": 0.0 if state.offload else MOMENTS * BYTES[state.dtype] * share,
    }
    rows = sft.rows_per_micro_batch or sft.batch_size
    passes = activations(config, model, rows, sft.max_length, sft.max_length - 1, mesh)
    # The gradients, and the step that the optimizer makes of them when the activations are gone.
    step = 2 * FP32 * share + max(passes, offloaded(state) * share)
    return Need("fine-tuning", {name: size for name, size in kept.items() if size}, SLACK * step)


def ppo_learning(
    config: TransformerConfig, model: Model, adapter: Adapter, ppo: PPO, state: OptimizerState, mesh: Mesh
) -> Need:
    """Return the memory of the stage `ppo`: policy, reference and critic, and the gradients of one at a time."""
    shards = mesh.fsdp * mesh.tensor
    policy = trained_share(config, adapter, mesh)
    critic = trained_share(config, adapter, mesh, with_head=False) if ppo.has_own_critic else 0.0
    moments = 0.0 if state.offload else MOMENTS * BYTES[state.dtype]
    kept = {
        "frozen base": frozen_bytes(config, model, adapter) / shards,
        "policy": FP32 * policy,
        "reference": BYTES[model.dtype] * policy,
        "critic": FP32 * critic,
        "moments": moments * (policy + critic),
        "gradients": FP32 * policy,
        "policy before the update": FP32 * policy if ppo.max_update_kl is not None else 0.0,
    }
    # The gradients of one micro-batch, before they are added to those of the others.
    rows = ppo.rows_per_micro_batch, ppo.row_length, ppo.num_predictions
    step = max(FP32 * policy + activations(config, model, *rows, mesh), offloaded(state) * policy)
    return Need("PPO", {name: size for name, size in kept.items() if size}, SLACK * step)


def offloaded(state: OptimizerState) -> float:
    """Return the bytes per parameter of moments in host memory, which an optimizer step moves to the device."""
    return MOMENTS * BYTES[state.dtype] if state.offload else 0.0


def activations(
    config: TransformerConfig, model: Model, num_rows: int, length: int, num_predictions: int, mesh: Mesh
) -> float:
    """Return the bytes that a forward and backward pass holds on each device, except gradients.

    That is: what every layer keeps for the backward pass; what one layer computes with, its weights gathered from all
    shards included; and the logits of one chunk of predictions with their gradient.
    """
    width = BYTES[model.dtype]
    tokens = math.ceil(num_rows / (mesh.data * mesh.fsdp)) * length / mesh.context
    heads = (2 * config.num_heads + 2 * config.num_kv_heads) * config.head_dim / mesh.tensor
    products = heads + 2 * config.hidden_size + 2 * config.intermediate_size / mesh.tensor
    saved = {"layer": 0.0, "matmuls": products, "none": 2 * products}[model.remat]
    residuals = config.num_layers * tokens * (config.hidden_size + saved) * width
    working = (
        COPIES * count_layer(config) / mesh.tensor * width
        + WIDE * tokens * config.intermediate_size / mesh.tensor * width
    )
    logits = min(CHUNK, tokens / length * num_predictions * config.vocab_size)
    return residuals + working + 2 * logits * FP32
