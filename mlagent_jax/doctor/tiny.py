"""A tiny policy that fits every mesh and every server, with random weights and a tokenizer."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from mlagent_jax.model.adapter import add_adapter, freeze
from mlagent_jax.model.config import Adapter
from mlagent_jax.model.families.qwen2 import Qwen2Config
from mlagent_jax.model.sharding import parameters_of
from mlagent_jax.model.transformer import Remat, Transformer
from rollout.tokenizer.chat import train_tokenizer
from tasks.system_text import system_text

NUM_TOKENS = 512  # of the tokenizer
HEAD_DIM = 64  # vLLM's kernels support it on every device
CONTEXT = 512
TINY_RANK = 8  # of its adapter


def tiny_model(
    mesh: Mesh, dtype: str, remat: Remat = "none", *, seed: int = 0, parts: int = 1, eos_token_id: int = 0
) -> Transformer:
    """Return a network of two layers.

    Args:
        mesh: The devices.
        dtype: The type of its activations.
        remat: The key `model.remat`.
        seed: The seed of its weights.
        parts: The number of devices that a server divides its heads over.
        eos_token_id: The token that ends a response.
    """
    kv_heads = math.lcm(mesh.shape["tensor"], parts)
    heads = math.lcm(2 * kv_heads * HEAD_DIM, mesh.shape["fsdp"]) // HEAD_DIM
    width, shards = heads * HEAD_DIM, mesh.shape["fsdp"] * mesh.shape["tensor"]
    config = Qwen2Config(
        vocab_size=-(-NUM_TOKENS // shards) * shards,
        hidden_size=width,
        intermediate_size=2 * width,
        num_layers=2,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=HEAD_DIM,
        max_position_embeddings=CONTEXT,
        initializer_range=0.1,  # far from uniform, so that wrong weights are noticed
        eos_token_id=eos_token_id,
    )
    return Transformer(config, nnx.Rngs(seed), jnp.dtype(dtype), remat, mesh)


def adapted(model: Transformer, rank: int) -> Transformer:
    """Return `model`, whose weights are frozen, with an adapter that changes what it computes."""
    made = add_adapter(freeze(model), Adapter(rank, 2.0 * rank, ("q_proj", "o_proj", "down_proj")), seed=1)
    nnx.update(made, jax.tree.map(lambda leaf: leaf + 0.1, parameters_of(made)))
    return made


def write_tokenizer(folder: Path) -> tuple[int, list[int]]:
    """Write a tokenizer that is trained on the system message, and return its end token and the tokens of a prompt."""
    text = system_text("full", 100)
    tokenizer = train_tokenizer([text], folder, NUM_TOKENS)
    return tokenizer.eos_id, tokenizer.encode(text)[: CONTEXT // 2]
