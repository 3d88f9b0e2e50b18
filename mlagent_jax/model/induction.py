"""An initialisation under which a fresh network already copies from its context.

A pretrained model has induction heads; one that starts from scratch needs most of a small training budget to grow
them. Here they are written into the random weights: in layer 0 two heads attend to the previous token and the one
before, by the q/k biases alone, and store codes of both beside the token; in layer 1 heads look for an earlier place
whose two preceding tokens are the last two seen, and copy what followed (Olsson et al. 2022, "In-context Learning and
Induction Heads", with a bigram for the key). Nothing is frozen: training starts from there.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from mlagent_jax.model.config import Qwen2Config
from mlagent_jax.model.qwen2 import Qwen2

OFFSET_SHARPNESS = 7.0  # q/k biases of the heads that look back by position
MATCH_SCORE = 12.0  # pre-softmax score of one matching token
EMBEDDING_STD = 0.05
COPY_STRENGTH = 3.0  # of the copied embedding against the token's own
STABLE_ROTATION = 3e-3  # radians a token: slower pairs carry content over ~500 tokens without turning away
FEWEST_COORDINATES = 8  # of each code in a head; fewer, and random tokens match as well as equal ones


def write_induction_heads(model: Qwen2, seed: int) -> None:
    """Write the circuit into `model`, in place; the network needs two layers and two key/value heads or more.

    The first half of the residual stream holds the token, the third quarter a code of the previous one, the last
    quarter a code of the one before; heads that take no part and the feed-forward layers start by adding nothing.

    Raises:
        ValueError: if the network is too small to hold the circuit.
    """
    config = model.config
    got = (config.num_layers, config.num_kv_heads, config.num_heads // config.num_kv_heads, _coordinates(config))
    if min(got[:3]) < 2 or got[3] < FEWEST_COORDINATES:
        raise ValueError(
            f"an induction start needs 2 layers, 2 key/value heads, 2 query heads for each, and heads wide enough for "
            f"{FEWEST_COORDINATES} slowly turning coordinates of a code; got {', '.join(map(str, got))}: use a larger "
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


def _stable_dims(config: Qwen2Config) -> Int[np.ndarray, " S"]:
    """Return the dims of a head that its rotation hardly turns, the first of each pair before all the second ones."""
    frequency = config.rope_theta ** (-np.arange(0, config.head_dim, 2) / config.head_dim)
    pairs = np.flatnonzero(frequency < STABLE_ROTATION)
    return np.concatenate([pairs, pairs + config.head_dim // 2])


def _coordinates(config: Qwen2Config) -> int:
    """Return how many coordinates of each of two codes a head compares."""
    return min(len(_stable_dims(config)), config.hidden_size // 4, config.head_dim) // 2


def _look_back(layers: dict[str, np.ndarray], head_dim: int, theta: float, group: int) -> None:
    """Layer 0: query heads 0 and 1 of key/value head 0 attend to offsets 1 and 2, whatever the tokens are."""
    frequency = theta ** (-np.arange(0, head_dim, 2) / head_dim)
    layers["q_proj"][0, :, :group] = 0.0
    layers["k_proj"][0, :, 0] = 0.0
    layers["k_bias"][0, 0] = OFFSET_SHARPNESS * np.repeat([1.0, 0.0], head_dim // 2)
    for head, offset in ((0, 1), (1, 2)):
        turned = np.concatenate([np.cos(offset * frequency), -np.sin(offset * frequency)])
        layers["q_bias"][0, head] = OFFSET_SHARPNESS * turned


def _store_codes(layers: dict[str, np.ndarray], code: Float[np.ndarray, "c half"], half: int, quarter: int) -> None:
    """Layer 0: what heads 0 and 1 see is written, as a code, to the third and the last quarter of the stream."""
    width = len(code)
    layers["v_proj"][0, :, 0] = 0.0
    layers["v_proj"][0, :half, 0, :width] = code.T
    # a normed token has norm sqrt(D); its embedding, which the code is to equal in size, EMBEDDING_STD sqrt(D/2)
    scale = EMBEDDING_STD
    for head in (0, 1):
        start = half + head * quarter
        layers["o_proj"][0, head, :width, start : start + width] = scale * np.eye(width)


def _match_and_copy(
    layers: dict[str, np.ndarray], code: Float[np.ndarray, "c half"], rng: np.random.Generator, model: Qwen2
) -> None:
    """Layer 1: the first query head of each of two key/value heads finds the bigram and copies half the token."""
    config = model.config
    half, quarter, head_dim = config.hidden_size // 2, config.hidden_size // 4, config.head_dim
    group = config.num_heads // config.num_kv_heads
    dims, part = _stable_dims(config), _coordinates(config)
    # tokens and codes each have a third of the normed stream's D; `part` coordinates of a code are part/half of it
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
