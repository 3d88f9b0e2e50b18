"""Attention by the textbook formulas, in float64 on the host, to compare the kernels of a device with."""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

# Segments of rows as (length, parent): the sequences of a row, or trees of them; what is left of a row is padding.
SEGMENTS: Mapping[str, Sequence[Sequence[tuple[int, int | None]]]] = {
    "packed": [[(70, None), (41, None), (1, None), (150, None)], [(290, None)]],
    "shared": [[(90, None), (60, 0), (80, 0), (20, 2), (25, None)], [(130, None), (7, 0), (33, 0), (100, 0)]],
}
LENGTH = 290


def example_rows(layout: str, length: int = LENGTH) -> tuple[Bool[np.ndarray, "B T T"], Int[np.ndarray, "B T"]]:
    """Return the mask of the rows of `SEGMENTS[layout]`, from the parents of their segments, and its `ends`."""
    rows = SEGMENTS[layout]
    mask = np.broadcast_to(np.eye(length, dtype=bool), (len(rows), length, length)).copy()
    for row, segments in zip(mask, rows, strict=True):
        starts = np.cumsum([0, *(size for size, _ in segments)])
        for index in range(len(segments)):
            tokens, seen = slice(starts[index], starts[index + 1]), index
            while seen is not None:
                row[tokens, starts[seen] : starts[seen + 1]] = True
                seen = segments[seen][1]
        row &= np.tri(length, dtype=bool)
    return mask, length - np.argmax(mask[:, ::-1], axis=1)  # the index after the last token that sees each


def plain_attention(
    q: Float[np.ndarray, "B T N H"],
    k: Float[np.ndarray, "B S K H"],
    v: Float[np.ndarray, "B S K H"],
    mask: Bool[np.ndarray, "B T S"],
    d_out: Float[np.ndarray, "B T N H"],
) -> tuple[np.ndarray, ...]:
    """Return softmax(q k^T / sqrt(H)) v, and the gradients of q, k and v for the gradient `d_out`."""
    q, k, v, d_out = (np.asarray(x, np.float64).swapaxes(1, 2) for x in (q, k, v, d_out))
    shape, group, scale = k.shape, q.shape[1] // k.shape[1], q.shape[-1] ** -0.5
    k, v = (np.repeat(x, group, axis=1) for x in (k, v))
    weights = np.where(mask[:, None], np.exp(scale * q @ k.swapaxes(2, 3)), 0.0)
    weights /= weights.sum(-1, keepdims=True)
    d_weights = d_out @ v.swapaxes(2, 3)
    d_scores = scale * weights * (d_weights - np.sum(weights * d_weights, axis=-1, keepdims=True))
    d_keys, d_values = (
        np.sum((left.swapaxes(2, 3) @ right).reshape(*shape[:2], group, *shape[2:]), axis=2)
        for left, right in ((d_scores, q), (weights, d_out))
    )
    return tuple(x.swapaxes(1, 2) for x in (weights @ v, d_scores @ k, d_keys, d_values))


def attention_errors(
    attend: Callable[..., Float[Array, "B T N H"]],
    layout: str,
    *,
    length: int = LENGTH,
    first: int = 0,
    heads: tuple[int, int] = (4, 2),
    head_dim: int = 32,
    dtype: DTypeLike = jnp.float32,
) -> dict[str, float]:
    """Compare a kernel with the formulas on random inputs, and return the largest errors of its values and gradients.

    Args:
        attend: A function of queries, keys, values and `ends`.
        layout: A key of `SEGMENTS`.
        length: The length of the rows.
        first: The index of the first query; keys and values begin at 0.
        heads: The numbers of query heads and of key/value heads.
        head_dim: The width of a head.
        dtype: The type of the inputs.

    Returns:
        The largest absolute error of `out`, `dq`, `dk` and `dv`, as a share of the largest expected value.
    """
    rng = np.random.default_rng(0)
    mask, ends = example_rows(layout, length)
    (n, k_heads), num_queries = heads, length - first
    shapes = ((num_queries, n), (length, k_heads), (length, k_heads), (num_queries, n))
    inputs = [jnp.asarray(rng.standard_normal((2, t, h, head_dim)), dtype) for t, h in shapes]

    @jax.jit  # of arguments: XLA would compute with constants itself, at compile time
    def with_gradients(q: jax.Array, k: jax.Array, v: jax.Array, d_out: jax.Array) -> tuple[jax.Array, ...]:
        out, backward = jax.vjp(lambda q, k, v: attend(q, k, v, jnp.asarray(ends, jnp.int32)), q, k, v)
        return out, *backward(d_out)

    q, k, v, d_out = (np.asarray(x, np.float32) for x in inputs)
    expected = plain_attention(q, k, v, mask[:, first:], d_out)
    errors = {}
    for name, found, right in zip(("out", "dq", "dk", "dv"), with_gradients(*inputs), expected, strict=True):
        assert found.dtype == dtype, f"{name} has the type {found.dtype}, expected {dtype}"
        errors[name] = float(np.max(np.abs(np.asarray(found, np.float64) - right)) / np.max(np.abs(right)))
    return errors


def tolerance(dtype: DTypeLike) -> float:
    """Return the largest error that rounding in a type explains."""
    return 2e-5 if dtype == jnp.float32 else 0.02
