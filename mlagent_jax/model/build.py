"""Build the initial policy of a run: from a checkpoint, or with random weights in the configured sizes."""

from pathlib import Path

import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from mlagent_jax.configuration.schema import Adapter as AdapterSettings
from mlagent_jax.configuration.schema import Model
from mlagent_jax.model.adapter import add_adapter, freeze
from mlagent_jax.model.config import Adapter, TransformerConfig
from mlagent_jax.model.hf import load_hf
from mlagent_jax.model.hf.peft import load_adapter
from mlagent_jax.model.induction import write_induction_heads
from mlagent_jax.model.sharding import check_vocabulary
from mlagent_jax.model.sizes import model_config, require_rows
from mlagent_jax.model.transformer import Transformer
from rollout.tokenizer.chat import ChatTokenizer

FULL = AdapterSettings()  # no adapter: all weights are trained


def build_model(
    model: Model, adapter: AdapterSettings, tokenizer: ChatTokenizer, mesh: Mesh, seed: int, max_length: int
) -> Transformer:
    """Return the policy before training: loaded from `model.path`, or with weights drawn from `seed`.

    Args:
        model: The model section of the configuration.
        adapter: The adapter section; with a rank, the checkpoint is frozen and has an adapter that is trained.
        tokenizer: The tokenizer of the policy.
        mesh: The devices over which the parameters are sharded.
        seed: The seed of random weights, or of the adapter.
        max_length: The longest context of a policy from scratch, in tokens.

    Raises:
        ValueError: If the checkpoint has fewer embedding rows than the tokenizer has tokens, or the mesh does not
            divide the number of rows.
        FileNotFoundError: If `model.path` is not a model directory.
    """
    dtype = jnp.dtype(model.dtype)
    if model.path is not None:
        shape = adapter_shape(adapter)
        loaded = load_hf(Path(model.path), dtype, mesh, model.remat, frozen=shape is not None)
        require_rows(Path(model.path), loaded.config.vocab_size, tokenizer.vocab_size)
        if shape is None:
            return loaded
        return add_adapter(loaded, shape, seed) if adapter.path is None else load_adapter(loaded, Path(adapter.path))
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


def adapter_shape(adapter: AdapterSettings) -> Adapter | None:
    """Return the shape of the adapter of a configuration, None if all weights are trained."""
    return None if adapter.rank is None else Adapter(adapter.rank, adapter.alpha, adapter.matrices)


def abstract_model(config: TransformerConfig, model: Model, mesh: Mesh, adapter: AdapterSettings = FULL) -> Transformer:
    """Return a network with abstract arrays, which have shapes and types but no values."""
    shape = adapter_shape(adapter)

    def make() -> Transformer:
        made = Transformer(config, nnx.Rngs(0), jnp.dtype(model.dtype), model.remat, mesh)
        return made if shape is None else add_adapter(freeze(made), shape, 0)

    return nnx.eval_shape(make)
