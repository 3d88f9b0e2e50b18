"""Attention sees what the layout says and nothing else; values and gradients are those of the plain formula."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlagent_jax.model.attention import SharedLayout, attention, blockwise, padded_layout, visible
from mlagent_jax.model.sharding import make_mesh

B, T, N, K, H = 2, 12, 4, 2, 8
# a prompt of 3 with responses of 2 and 3, then a sequence of 2 and two of padding; a sequence of 7, its copy of 5
ENDS = np.array([[8, 8, 8, 5, 5, 8, 8, 8, 10, 10, 11, 12], [7, 7, 7, 7, 7, 7, 7, 12, 12, 12, 12, 12]])


def arrays() -> tuple[jax.Array, ...]:
    rng = np.random.default_rng(0)
    shapes = ((B, T, N, H), (B, T, K, H), (B, T, K, H), (B, T, N, H))
    return tuple(jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes)


def plain(q: jax.Array, k: jax.Array, v: jax.Array, ends: jax.Array) -> jax.Array:
    """Return attention head by head, key/value heads repeated, unseen scores left out of every sum."""
    k, v = (jnp.repeat(x, N // K, axis=2) for x in (k, v))
    mask = np.array([[[s <= t < row[s] for s in range(T)] for t in range(T)] for row in ENDS])
    scores = jnp.where(mask[:, None], jnp.exp(jnp.einsum("btnh,bsnh->bnts", q, k) / np.sqrt(H)), 0.0)
    return jnp.einsum("bnts,bsnh->btnh", scores / scores.sum(-1, keepdims=True), v)


def assert_plain(compute: Callable[..., jax.Array]) -> None:
    """Check values and gradients of `compute(q, k, v, ends)`."""
    q, k, v, upstream = arrays()

    def with_gradients(compute: Callable[..., jax.Array]) -> tuple[jax.Array, ...]:
        result, backward = jax.vjp(lambda q, k, v: compute(q, k, v, jnp.asarray(ENDS)), q, k, v)
        return result, *backward(upstream)

    found, expected = jax.jit(lambda: (with_gradients(compute), with_gradients(plain)))()
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("unrolled", [0, 32])
@pytest.mark.parametrize("block", [5, 256])
def test_values_and_gradients_are_those_of_the_plain_formula(
    block: int, unrolled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blockwise, "BLOCK", block)  # two whole blocks and a part of one, or one for all
    monkeypatch.setattr(blockwise, "UNROLLED", unrolled)  # one after the other in a loop, or each compiled
    assert_plain(blockwise.blockwise_attention)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 1, 2, 2), (1, 1, 1, 4), (1, 2, 1, 3)])
def test_rows_heads_and_sequence_can_be_spread_over_a_mesh(shape: tuple[int, int, int, int]) -> None:
    assert_plain(lambda q, k, v, ends: attention(q, k, v, SharedLayout(ends), make_mesh(*shape)))


def test_scores_beyond_the_range_of_exp_stay_finite() -> None:
    q, k, v, _ = arrays()
    layout = padded_layout(jnp.array([T, T]), T)
    found, gradient = jax.jit(jax.value_and_grad(lambda q: attention(1e3 * q, k, v, layout).sum()))(q)
    assert np.isfinite(found) and np.isfinite(gradient).all()


def test_a_shared_prompt_is_seen_by_both_responses_which_do_not_see_each_other() -> None:
    expected = [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    found = visible(jnp.array([[5, 5, 4, 4, 5, 6]]), jnp.arange(6), jnp.arange(6))
    np.testing.assert_array_equal(found[0], np.array(expected, bool))


def test_padded_rows_are_causal_and_padding_is_seen_by_itself_only() -> None:
    layout = padded_layout(jnp.array([3, 5]), 5)
    np.testing.assert_array_equal(layout.ends, [[3, 3, 3, 4, 5], [5, 5, 5, 5, 5]])
