"""Initialize a Qwen2 network so that it copies from its context before any training.

A pretrained model has induction heads; a model from scratch spends most of a small training budget on growing them.
This initialization writes them into the random weights. In layer 0, two heads attend to the previous token and the one
before it, by the q/k biases alone, and store codes of both next to the token. In layer 1, heads attend to an earlier
position whose two preceding tokens are the last two tokens, and copy the token there (Olsson et al. 2022, "In-context
Learning and Induction Heads", with a bigram as the key). All weights are trained from there.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from mlagent_jax.model.config import TransformerConfig
from mlagent_jax.model.transformer import Transformer

OFFSET_SHARPNESS = 7.0  # the q/k biases of the heads that attend by position
MATCH_SCORE = 12.0  # the pre-softmax score of one matching token
EMBEDDING_STD = 0.05
COPY_STRENGTH = 3.0  # the scale of the copied embedding relative to that of the token itself
STABLE_ROTATION = 3e-3  # radians per token; slower pairs keep their direction over about 500 tokens
MIN_COORDINATES = 8  # minimum size of each code in a head; with fewer, random tokens match as well as equal ones


def write_induction_heads(model: Transformer, seed: int) -> None:
    """Write the circuit into `model`, in place; it needs q/k biases, two layers and two key/value heads.

    The first half of the residual stream holds the token, the third quarter a code of the previous token, and the last
    quarter a code of the token before that. The other heads and the feed-forward layers initially add zero.

    Raises:
        ValueError: If the network is too small for the circuit.
    """
    config = model.config
    got = (config.num_layers, config.num_kv_heads, config.num_heads // config.num_kv_heads, _coordinates(config))
    assert "q_bias" in config.layer_names, "heads that attend by position do so by their biases"
    if min(got[:3]) < 2 or got[3] < MIN_COORDINATES:
        raise ValueError(
            f"an induction start needs 2 layers, 2 key/value heads, 2 query heads for each, and heads that hold "
            f"{MIN_COORDINATES} slowly rotating coordinates of a code; got {', '.join(map(str, got))}: use a larger "
            "model or set model.induction_init=false"
        )
    rng = np.random.default_rng(seed)
    layers = {name: np.array(getattr(model.layers, name)[...]) for name in ("q_proj", "k_proj", "v_proj", "o_proj")}
    layers |= {name: np.array(getattr(model.layers, name)[...]) for name in ("q_bias", "k_bias")}
    half, quarter = config.hidden_size // 2, config.hidden_size // 4
    embedding = EMBEDDING_STD * rng.standard_normal((config.vocab_size, config.hidden_size))
    embedding[:, half:] = 0.0
    code = np.linalg.qr(rng.standard_normal((half, half)))[0].T[: min(quarter, config.head_dim)]

    layers["o_proj"][:] = 0.0
    _look_back(layers, config.head_dim, config.rope_theta, config.num_heads // config.num_kv_heads)
    _store_codes(layers, code, half, quarter)
    _match_and_copy(layers, code, rng, model)

    for name, value in layers.items():
        getattr(model.layers, name)[...] = jnp.asarray(value, jnp.float32)
    model.layers.down_proj[...] = jnp.zeros_like(model.layers.down_proj[...])
    model.embed_tokens[...] = jnp.asarray(embedding, jnp.float32)


def _stable_dims(config: TransformerConfig) -> Int[np.ndarray, " S"]:
    """Return the slowly rotating dims of a head: the first dim of every pair, then the second ones."""
    frequency = config.rope_theta ** (-np.arange(0, config.head_dim, 2) / config.head_dim)
    pairs = np.flatnonzero(frequency < STABLE_ROTATION)
    return np.concatenate([pairs, pairs + config.head_dim // 2])


def _coordinates(config: TransformerConfig) -> int:
    """Return the number of coordinates of each of two codes that a head compares."""
    return min(len(_stable_dims(config)), config.hidden_size // 4, config.head_dim) // 2


def _look_back(layers: dict[str, np.ndarray], head_dim: int, theta: float, group: int) -> None:
    """Make query heads 0 and 1 of layer 0 attend to the offsets 1 and 2, regardless of the tokens."""
    frequency = theta ** (-np.arange(0, head_dim, 2) / head_dim)
    layers["q_proj"][0, :, :group] = 0.0
    layers["k_proj"][0, :, 0] = 0.0
    layers["k_bias"][0, 0] = OFFSET_SHARPNESS * np.repeat([1.0, 0.0], head_dim // 2)
    for head, offset in ((0, 1), (1, 2)):
        rotated = np.concatenate([np.cos(offset * frequency), -np.sin(offset * frequency)])
        layers["q_bias"][0, head] = OFFSET_SHARPNESS * rotated


def _store_codes(layers: dict[str, np.ndarray], code: Float[np.ndarray, "c half"], half: int, quarter: int) -> None:
    """Make heads 0 and 1 of layer 0 write codes of their tokens to the third and the last quarter of the stream."""
    width = len(code)
    layers["v_proj"][0, :, 0] = 0.0
    layers["v_proj"][0, :half, 0, :width] = code.T
    # a normed token has norm sqrt(D); its embedding, whose size the code must have, EMBEDDING_STD sqrt(D/2)
    scale = EMBEDDING_STD
    for head in (0, 1):
        start = half + head * quarter
        layers["o_proj"][0, head, :width, start : start + width] = scale * np.eye(width)


def _match_and_copy(
    layers: dict[str, np.ndarray], code: Float[np.ndarray, "c half"], rng: np.random.Generator, model: Transformer
) -> None:
    """Make the first query head of key/value heads 0 and 1 of layer 1 match the bigram and copy half the token."""
    config = model.config
    half, quarter, head_dim = config.hidden_size // 2, config.hidden_size // 4, config.head_dim
    group = config.num_heads // config.num_kv_heads
    dims, part = _stable_dims(config), _coordinates(config)
    # tokens and codes each have a third of the squared norm D; `part` coordinates of a code have part/half of that
    gain = np.sqrt(MATCH_SCORE * np.sqrt(head_dim) / (config.hidden_size / 3 * part / half))
    basis = np.linalg.qr(rng.standard_normal((half, half)))[0].T
    for kv in (0, 1):
        head, rows = kv * group, slice(kv * part, (kv + 1) * part)
        query, key = layers["q_proj"][1], layers["k_proj"][1]
        query[:, head], key[:, kv] = 0.0, 0.0
        last, before = dims[:part], dims[part : 2 * part]
        query[:half, head, last] = gain * code[rows].T
        query[half + np.arange(rows.start, rows.stop), head, before] = gain
        key[half + np.arange(rows.start, rows.stop), kv, last] = gain
        key[half + quarter + np.arange(rows.start, rows.stop), kv, before] = gain
        width = min(head_dim, half // 2)
        copied = basis[kv * width : (kv + 1) * width]
        layers["v_proj"][1, :, kv] = 0.0
        layers["v_proj"][1, :half, kv, :width] = copied.T
        layers["o_proj"][1, head, :width, :half] = COPY_STRENGTH * EMBEDDING_STD * copied
