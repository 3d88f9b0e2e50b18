"""The policy a run starts from: a checkpoint's, or a fresh one of the configured shape."""

from pathlib import Path

import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from mlagent_jax.configuration.schema import Config, Model
from mlagent_jax.model.config import Qwen2Config
from mlagent_jax.model.hf import load_hf
from mlagent_jax.model.induction import write_induction_heads
from mlagent_jax.model.qwen2 import Qwen2
from mlagent_jax.model.sharding import check_vocabulary
from mlagent_jax.model.sizes import checkpoint_config, require_sizes
from rollout.tokenizer.chat import ChatTokenizer


def model_config(
    model: Model, vocab_size: int, eos_token_id: int, max_length: int, bos_token_id: int = 0
) -> Qwen2Config:
    """Return the configuration of the network whose sizes the section `model` states.

    Raises:
        ConfigError: If one of the sizes is null.
    """
    require_sizes(model, vocab_size)
    assert model.num_layers and model.hidden_size and model.num_heads and model.num_kv_heads
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


def build_model(config: Config, tokenizer: ChatTokenizer, mesh: Mesh) -> Qwen2:
    """Return the policy before training: read from `model.path`, or fresh weights drawn from the run's seed.

    Raises:
        ValueError: if the checkpoint has fewer embedding rows than the tokenizer has tokens, or their number does not
            fit the mesh.
        FileNotFoundError: if `model.path` is no model directory.
    """
    dtype = jnp.dtype(config.model.dtype)
    if config.model.path is not None:
        model = load_hf(Path(config.model.path), dtype, mesh, config.model.remat)
        if model.config.vocab_size < tokenizer.vocab_size:
            raise ValueError(
                f"{config.model.path}: {model.config.vocab_size} embedding rows for a tokenizer of "
                f"{tokenizer.vocab_size} tokens; use the tokenizer the model was trained with"
            )
        return model
    check_vocabulary(tokenizer.vocab_size, mesh)
    shape = model_config(
        config.model,
        tokenizer.vocab_size,
        tokenizer.eos_id,
        config.server.max_model_len,
        bos_token_id=tokenizer.pad_id,  # as in Qwen2.5, which has no token of its own to begin with
    )
    model = Qwen2(shape, nnx.Rngs(config.seed), dtype, config.model.remat, mesh)
    if config.model.induction_init:
        write_induction_heads(model, config.seed)
    return model


def abstract_model(config: Config, mesh: Mesh) -> Qwen2:
    """Return the policy with shapes in place of arrays; its sizes are the checkpoint's if `config.json` is there.

    Raises:
        ConfigError: If there is no `config.json` and the configuration does not state the sizes, or the two differ.
    """
    vocab_size = config.tokenizer.vocab_size
    if config.model.path is not None and (Path(config.model.path) / "config.json").is_file():
        shape = checkpoint_config(config.model, vocab_size, config.mesh)
    else:
        require_sizes(config.model, vocab_size)
        assert vocab_size is not None
        shape = model_config(config.model, vocab_size, eos_token_id=0, max_length=config.sft.max_length)
    return nnx.eval_shape(lambda: Qwen2(shape, nnx.Rngs(0), jnp.dtype(config.model.dtype), config.model.remat, mesh))
