"""The keys of the policy network, of an adapter of it, and of the devices that train it."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mlagent_jax.configuration.value_types import STRICT, Count, Dtype, Fraction, Gpus, Positive
from rollout.options import UserPath


@dataclass(frozen=True, config=STRICT)
class Tokenizer:
    """The tokenizer of a policy that is trained from scratch; a checkpoint at model.path has its own."""

    vocab_size: Count | None = None
    """Maximum number of tokens of the byte-level BPE, special tokens included; null: the checkpoint's."""


@dataclass(frozen=True, config=STRICT)
class Model:
    """The policy network; the keys that are null have the values of the checkpoint at path."""

    path: UserPath | None = "models/Qwen2.5-7B"
    """Hugging Face directory of the checkpoint to start from; null: from scratch, with the sizes below."""
    num_layers: Count | None = None
    """Number of transformer layers; null: the checkpoint's."""
    hidden_size: Count | None = None
    """Width of the residual stream; null: the checkpoint's."""
    num_heads: Count | None = None
    """Number of query heads; null: the checkpoint's."""
    num_kv_heads: Count | None = None
    """Number of key/value heads, a divisor of num_heads; null: the checkpoint's."""
    intermediate_size: Count | None = None
    """Width of the SwiGLU feed-forward layer; null: the checkpoint's."""
    rope_theta: Positive | None = None
    """Base of the rotary position embedding; null: the checkpoint's."""
    tie_word_embeddings: bool | None = None
    """Whether the output head shares the embedding table; null: the checkpoint's."""
    induction_init: bool = False
    """Whether a network from scratch starts with attention heads that copy from the context."""
    dtype: Dtype = "bfloat16"
    """Type that the network computes in, without further rounding on any platform; log-probabilities and losses are
    always float32."""
    remat: Literal["none", "matmuls", "layer"] = "layer"
    """Activations that the backward pass recomputes to save memory. none: none; matmuls: all except the results of
    matrix products and attention; layer: those of whole layers."""


@dataclass(frozen=True, config=STRICT)
class Adapter:
    """A low-rank adapter (LoRA), which is trained in place of the weights of the checkpoint at model.path."""

    rank: Annotated[int, Field(gt=0, le=512)] | None = None
    """Rank of every matrix's adapter, at most 512; null: all weights are trained."""
    alpha: Positive = 32.0
    """Scale of an adapter, which is multiplied by alpha / rank."""
    path: UserPath | None = None
    """PEFT directory of an adapter to go on from, of this rank, alpha and targets; null: a new one."""
    first_stage: Literal["sft", "ppo"] = "sft"
    """Stage from which on the adapter is trained; ppo: fine-tuning trains all weights, and PPO an adapter of the
    result."""
    targets: Literal["attention", "mlp", "all"] = "all"
    """Matrices that have an adapter. attention: those of queries, keys, values and output; mlp: those of the
    feed-forward layer; all: both."""

    @property
    def matrices(self) -> tuple[str, ...]:
        """The names of the matrices that have an adapter."""
        attention = () if self.targets == "mlp" else ("q_proj", "k_proj", "v_proj", "o_proj")
        return attention if self.targets == "attention" else (*attention, "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, config=STRICT)
class Mesh:
    """The layout of the trainer's devices; the product of the axes is the number of devices."""

    data: Count = 1
    """Size of the data axis: replicas of the model that divide the batch."""
    fsdp: Count = 1
    """Size of the FSDP axis: shards of parameters and optimizer state, which divide the batch too."""
    tensor: Count = 1
    """Size of the tensor axis: shards of attention heads and feed-forward layers."""
    context: Count = 1
    """Size of the context axis: shards of the sequence."""


@dataclass(frozen=True, config=STRICT)
class Trainer:
    """The GPUs of the trainer's process; without effect on a CPU or TPU."""

    gpus: Gpus | None = None
    """Numbers (as nvidia-smi shows them) or UUIDs of the GPUs that JAX sees, such as [0, 1]; null: as many as the mesh
    has devices, those first that neither server.gpus nor executor.gpus names; with several processes, all visible
    ones."""
    memory_fraction: Fraction | None = None
    """Share of the memory of each of its GPUs that JAX takes when it starts; null: 0.9, or on GPUs that it shares with
    the server 0.95 without the server's share."""
