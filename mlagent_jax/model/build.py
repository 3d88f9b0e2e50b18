"""Build the initial policy of a run: from a checkpoint, or with random weights in the configured sizes."""

from pathlib import Path

import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from mlagent_jax.configuration.schema import Mesh as MeshShape
from mlagent_jax.configuration.schema import Model
from mlagent_jax.model.config import TransformerConfig
from mlagent_jax.model.families.qwen2 import Qwen2Config
from mlagent_jax.model.hf import load_hf
from mlagent_jax.model.induction import write_induction_heads
from mlagent_jax.model.sharding import check_vocabulary
from mlagent_jax.model.sizes import checkpoint_config, require_rows, require_sizes
from mlagent_jax.model.transformer import Transformer
from rollout.tokenizer.chat import ChatTokenizer


def model_config(
    model: Model, vocab_size: int | None, eos_token_id: int, max_length: int, bos_token_id: int = 0
) -> Qwen2Config:
    """Return the configuration of a network of the sizes in `model`; a policy from scratch is a Qwen2 network.

    Raises:
        ConfigError: If one of the sizes is null.
    """
    require_sizes(model, vocab_size)
    assert vocab_size and model.num_layers and model.hidden_size and model.num_heads and model.num_kv_heads
    assert model.intermediate_size and model.rope_theta and model.tie_word_embeddings is not None
    return Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=model.hidden_size,
        intermediate_size=model.intermediate_size,
        num_layers=model.num_layers,
        num_heads=model.num_heads,
        num_kv_heads=model.num_kv_heads,
        head_dim=model.hidden_size // model.num_heads,
        rope_theta=model.rope_theta,
        tie_word_embeddings=model.tie_word_embeddings,
        max_position_embeddings=max_length,
        eos_token_id=eos_token_id,
        bos_token_id=bos_token_id,
    )


def build_model(model: Model, tokenizer: ChatTokenizer, mesh: Mesh, seed: int, max_length: int) -> Transformer:
    """Return the policy before training: loaded from `model.path`, or with weights drawn from `seed`.

    Args:
        model: The model section of the configuration.
        tokenizer: The tokenizer of the policy.
        mesh: The devices over which the parameters are sharded.
        seed: The seed of random weights.
        max_length: The longest context of a policy from scratch, in tokens.

    Raises:
        ValueError: If the checkpoint has fewer embedding rows than the tokenizer has tokens, or the mesh does not
            divide the number of rows.
        FileNotFoundError: If `model.path` is not a model directory.
    """
    dtype = jnp.dtype(model.dtype)
    if model.path is not None:
        loaded = load_hf(Path(model.path), dtype, mesh, model.remat)
        require_rows(Path(model.path), loaded.config.vocab_size, tokenizer.vocab_size)
        return loaded
    check_vocabulary(tokenizer.vocab_size, mesh)
    config = model_config(
        model,
        tokenizer.vocab_size,
        tokenizer.eos_id,
        max_length,
        bos_token_id=tokenizer.pad_id,  # as in Qwen2.5, which has no beginning-of-text token
    )
    network = Transformer(config, nnx.Rngs(seed), dtype, model.remat, mesh)
    if model.induction_init:
        write_induction_heads(network, seed)
    return network


def planned_config(model: Model, vocab_size: int | None, mesh: MeshShape, max_length: int) -> TransformerConfig:
    """Return the sizes of the policy: the checkpoint's if there is a `config.json`, else those that are stated.

    Args:
        model: The section `model`.
        vocab_size: The key `tokenizer.vocab_size`.
        mesh: The section `mesh`.
        max_length: The longest context of a policy from scratch, in tokens.

    Raises:
        ConfigError: If neither states all sizes, or the two differ.
    """
    if model.path is not None and (Path(model.path) / "config.json").is_file():
        return checkpoint_config(model, vocab_size, mesh)
    return model_config(model, vocab_size, eos_token_id=0, max_length=max_length)


def abstract_model(config: TransformerConfig, model: Model, mesh: Mesh) -> Transformer:
    """Return a network with abstract arrays, which have shapes and types but no values."""
    return nnx.eval_shape(lambda: Transformer(config, nnx.Rngs(0), jnp.dtype(model.dtype), model.remat, mesh))
