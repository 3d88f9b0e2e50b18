"""The critic maps each hidden state to one number; it starts at 0 and shares nothing with the policy."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mlagent_jax.model.logprob import gather_sources
from mlagent_jax.model.packed_batch import PackedBatch
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.model.value import Critic


def test_a_new_critic_predicts_zero_and_learns_from_its_head_on(
    make_model: Callable[..., Transformer], rows_of: Callable[..., PackedBatch]
) -> None:
    graph, parameters = nnx.split(Critic(make_model()))
    rows = rows_of([[1, 2, 3, 4], [5, 6]])

    @jax.jit
    def values_and_gradient(parameters: nnx.State) -> tuple[jax.Array, nnx.State]:
        def loss(parameters: nnx.State) -> tuple[jax.Array, jax.Array]:
            values = nnx.merge(graph, parameters).values(rows)
            return jnp.sum(rows.weights * jnp.square(values - 1.0)), values

        gradient, values = jax.grad(loss, has_aux=True)(parameters)
        return values, gradient

    values, gradient = values_and_gradient(parameters)
    np.testing.assert_array_equal(values, np.zeros((2, 3)))
    assert jnp.abs(gradient["value_head"][...]).max() > 0
    assert gradient["value_bias"][...] == -2 * rows.weights.sum()
    assert not jnp.abs(gradient["trunk"]["norm"][...]).any()  # a head of zeros sends nothing back yet
    parameters["value_head"][...] = jnp.ones(32)
    _, gradient = values_and_gradient(parameters)
    assert jnp.abs(gradient["trunk"]["embed_tokens"][...]).max() > 0


def test_value_is_read_at_the_source_before_the_token_is_chosen(
    make_model: Callable[..., Transformer], rows_of: Callable[..., PackedBatch]
) -> None:
    critic = Critic(make_model())
    critic.value_head[...] = jnp.arange(32.0)
    critic.value_bias[...] = jnp.array(3.0)
    rows, other_end = rows_of([[1, 2, 3, 4]]), rows_of([[1, 2, 3, 5]])
    values = nnx.jit(lambda critic, rows: (critic.values(rows), hidden_of(critic, rows)))
    found, hidden = values(critic, rows)
    np.testing.assert_allclose(found, hidden @ np.arange(32.0) + 3.0, rtol=1e-5)
    np.testing.assert_allclose(values(critic, other_end)[0], found, rtol=1e-5)


def hidden_of(critic: Critic, rows: PackedBatch) -> jax.Array:
    hidden = critic.trunk.hidden(jnp.asarray(rows.tokens), jnp.asarray(rows.positions), rows.layout)
    return gather_sources(hidden, jnp.asarray(rows.sources))
