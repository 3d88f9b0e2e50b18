"""Compute the logits of an exported policy from token ids."""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree

from mlagent_jax.model.attention import padded_layout
from mlagent_jax.model.hf import load_hf
from mlagent_jax.model.transformer import Transformer

SHORTEST = 16  # tokens; rows are padded to a power of two of at least this, so that growing rows compile rarely


def load_policy(folder: Path | str) -> "ExportedPolicy":
    """Return the policy in a Hugging Face directory, such as a run's `export/` or a Qwen2.5 or Qwen3 checkpoint.

    Raises:
        FileNotFoundError: If the directory, its `config.json` or its weights are missing.
        ValueError: If its family is not supported, or its weights do not fit its config.
    """
    return ExportedPolicy(load_hf(folder))


class ExportedPolicy:
    """A network with fixed weights that predicts tokens; made by `load_policy`."""

    def __init__(self, model: Transformer) -> None:
        self.config = model.config
        graph, self._parameters = nnx.split(model)

        @jax.jit
        def logits(parameters: PyTree, tokens: Int[Array, "B T"]) -> Float[Array, "B T V"]:
            b, t = tokens.shape
            positions, layout = jnp.broadcast_to(jnp.arange(t), (b, t)), padded_layout(jnp.full(b, t), t)
            model = nnx.merge(graph, parameters)
            return model.logits(model.hidden(tokens, positions, layout))

        self._logits = logits

    def logits(self, token_ids: Sequence[Sequence[int]] | np.ndarray | Array) -> Float[np.ndarray, "B T V"]:
        """Return fp32 logits; the one at (b, t, v) is that of token v after the first t + 1 tokens of row b.

        All computation is in fp32, as in every network of this type; see `mlagent_jax.model.matmul`.

        Args:
            token_ids: `[B, T]` rows of one length, each from its first token on. A shorter row can be padded on the
                right with any token, which changes no logit before the padding.

        Raises:
            ValueError: If the ids are not a rectangular array of integers, or not in the vocabulary.
        """
        tokens = _rectangle(token_ids, self.config.vocab_size)
        length = tokens.shape[1]
        padded = max(SHORTEST, 1 << (length - 1).bit_length())
        tokens = np.pad(tokens, ((0, 0), (0, padded - length)))
        return np.asarray(self._logits(self._parameters, tokens)[:, :length])


def _rectangle(token_ids: Sequence[Sequence[int]] | np.ndarray | Array, vocab_size: int) -> Int[np.ndarray, "B T"]:
    try:
        tokens = np.asarray(token_ids)
    except ValueError:
        raise ValueError("token_ids: rows of different lengths; pad the shorter ones on the right") from None
    if tokens.ndim != 2 or not tokens.size or not np.issubdtype(tokens.dtype, np.integer):
        raise ValueError(
            f"token_ids: got shape {tokens.shape} of {tokens.dtype}; expected integers [B, T], at least one in each "
            "dimension; put a single sequence in a list"
        )
    if tokens.min() < 0 or tokens.max() >= vocab_size:
        wrong = tokens.min() if tokens.min() < 0 else tokens.max()
        raise ValueError(
            f"token_ids: {wrong} is not in the vocabulary of {vocab_size}; use the tokenizer in the same folder"
        )
    return tokens.astype(np.int32)
