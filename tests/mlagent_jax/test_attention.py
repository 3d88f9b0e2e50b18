"""Attention sees what the layout says and nothing else; values and gradients are those of the plain formula."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlagent_jax.model import attention as attention_module
from mlagent_jax.model.attention import Layout, attention, attention_mask, padded_layout

B, T, N, K, H = 2, 10, 4, 2, 8


def arrays() -> tuple[jax.Array, ...]:
    rng = np.random.default_rng(0)
    shapes = ((B, T, N, H), (B, T, K, H), (B, T, K, H), (B, T, N, H))
    return tuple(jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes)


def plain(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns attention head by head, key/value heads repeated, masked scores left out of every sum."""
    k, v = (jnp.repeat(x, N // K, axis=2) for x in (k, v))
    scores = jnp.where(mask[:, None], jnp.exp(jnp.einsum("btnh,bsnh->bnts", q, k) / np.sqrt(H)), 0.0)
    return jnp.einsum("bnts,bsnh->btnh", scores / scores.sum(-1, keepdims=True), v)


@pytest.mark.parametrize("block", [4, 256])
def test_values_and_gradients_are_those_of_the_plain_formula(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_module, "BLOCK", block)  # two whole blocks and a half, or one for all
    q, k, v, upstream = arrays()
    rng = np.random.default_rng(1)
    mask = jnp.asarray(np.tril(rng.random((B, T, T)) < 0.5) | np.eye(T, dtype=bool))

    def with_gradients(compute: Callable[..., jax.Array]) -> tuple[jax.Array, ...]:
        result, backward = jax.vjp(lambda q, k, v: compute(q, k, v, mask), q, k, v)
        return result, *backward(upstream)

    found, expected = jax.jit(lambda: (with_gradients(attention), with_gradients(plain)))()
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_scores_beyond_the_range_of_exp_stay_finite() -> None:
    q, k, v, _ = arrays()
    mask = jnp.asarray(np.broadcast_to(np.tril(np.ones((T, T), bool)), (B, T, T)))
    found, gradient = jax.jit(jax.value_and_grad(lambda q: attention(1e3 * q, k, v, mask).sum()))(q)
    assert np.isfinite(found) and np.isfinite(gradient).all()


def test_mask_of_a_shared_prompt_and_two_responses() -> None:
    ancestors = np.eye(4, dtype=bool)
    ancestors[2, 1] = ancestors[3, 1] = True
    layout = Layout(jnp.array([[1, 1, 2, 2, 3, 0]]), jnp.asarray(ancestors)[None])
    expected = [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    np.testing.assert_array_equal(jax.jit(attention_mask)(layout)[0], np.array(expected, bool))


def test_mask_of_padded_rows_is_causal_and_padding_sees_itself_only() -> None:
    mask = np.asarray(jax.jit(lambda lengths: attention_mask(padded_layout(lengths, 5)))(jnp.array([3, 5])))
    np.testing.assert_array_equal(mask[1], np.tril(np.ones((5, 5), bool)))
    np.testing.assert_array_equal(mask[0, :3, :3], np.tril(np.ones((3, 3), bool)))
    np.testing.assert_array_equal(mask[0, 3:], np.eye(5, dtype=bool)[3:])
    assert not mask[0, :3, 3:].any()
