"""The memory that vLLM takes on each device, by arithmetic from the sizes of the network and the settings."""

import math
from dataclasses import dataclass

from mlagent_jax.configuration.schema import Adapter, Server, Trainer
from mlagent_jax.gpus.assignment import SERVER_BESIDE_TRAINER
from mlagent_jax.gpus.training_memory import BYTES, FP32, WIDE, count_parameters, count_trained
from mlagent_jax.model.config import TransformerConfig
from tasks.units import GIB, MIB

# vLLM's profiling run on a large GPU computes by default: a batch of so many tokens, and logits of so many
# sequences, which sampling copies.
BATCH_TOKENS, SEQUENCES, LOGIT_COPIES = 8192, 1024, 2
ADAPTER_SLOTS = 2  # of `rollout.inference.server`
RUNTIME = 1.0 * GIB  # compiled graphs, workspaces and NCCL


@dataclass(frozen=True)
class ServerNeed:
    """The memory of the policy server on each device, in bytes.

    Attributes:
        weights: The weights; exact.
        cache: The key/value cache that is asked for; None if it gets what is left.
        smallest_cache: The cache of one request of full length, without which vLLM does not start.
        token: The cache of one token.
        other: Everything else; an estimate.
    """

    weights: float
    cache: float | None
    smallest_cache: float
    token: float
    other: float


def serving(config: TransformerConfig, server: Server, adapter: Adapter | None = None) -> ServerNeed:
    """Return the memory of the server; with `dtype` auto it has the type of saved weights, float32.

    Args:
        config: The sizes of the policy.
        server: The section `server`.
        adapter: The section `adapter`, of which the server keeps two at a time if it takes adapters.
    """
    width = BYTES.get(server.dtype, FP32)
    num_kv_heads = math.ceil(config.num_kv_heads / server.tensor_parallel)
    token = 2.0 * config.num_layers * num_kv_heads * config.head_dim * width
    batch = WIDE * BATCH_TOKENS * config.intermediate_size * width
    logits = LOGIT_COPIES * SEQUENCES * config.vocab_size * FP32
    adapters = 0.0
    if adapter is not None and server.weight_transfer == "adapter":
        adapters = ADAPTER_SLOTS * count_trained(config, adapter) * width
    return ServerNeed(
        weights=count_parameters(config) * width / server.tensor_parallel,
        cache=None if server.kv_cache_mb is None else server.kv_cache_mb * MIB,
        smallest_cache=server.max_model_len * token,
        token=token,
        other=RUNTIME + (batch + logits + adapters) / server.tensor_parallel,
    )


def memory_beside_trainer(
    config: TransformerConfig,
    server: Server,
    trainer: Trainer,
    num_gpus: int,
    gpu_bytes: float,
    adapter: Adapter | None = None,
) -> int:
    """Return the memory of the run's own server on a GPU that it shares with the trainer, in bytes; 0 if there is none.

    A GPU that is named by its UUID may be one of the trainer's, and counts as shared.

    Args:
        config: The sizes of the policy.
        server: The section `server`.
        trainer: The section `trainer`.
        num_gpus: The number of GPUs that the trainer uses.
        gpu_bytes: The memory of a GPU.
        adapter: The section `adapter`; see `serving`.
    """
    names, trained = server.gpus or (), {*(trainer.gpus or range(num_gpus))}
    is_apart = bool(names) and all(isinstance(name, int) and name not in trained for name in names)
    if server.address is not None or is_apart:
        return 0
    if server.kv_cache_mb is None:
        return round((server.memory_fraction or SERVER_BESIDE_TRAINER) * gpu_bytes)
    need = serving(config, server, adapter)
    return round(need.weights + (need.cache or 0.0) + need.other)
