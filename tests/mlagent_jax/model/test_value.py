"""The critic maps each hidden state to one number; it starts at 0 and shares nothing with the policy."""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mlagent_jax.model.config import TransformerConfig
from mlagent_jax.model.families.qwen2 import Qwen2Config
from mlagent_jax.model.families.qwen3 import Qwen3Config
from mlagent_jax.model.logprob import gather_sources, token_logprobs
from mlagent_jax.model.packed_batch import PackedBatch
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.model.value import Critic, frozen_copy, separate_critic


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


@pytest.mark.parametrize("family", [Qwen2Config, Qwen3Config])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_frozen_copy_computes_the_same_to_the_bit(
    family: type[TransformerConfig],
    tied: bool,
    dtype: str,
    make_model: Callable[..., Transformer],
    rows_of: Callable[..., PackedBatch],
) -> None:
    config = family(**vars(make_model().config) | {"tie_word_embeddings": tied})
    critic = Critic(Transformer(config, nnx.Rngs(0), dtype))
    for seed, (path, leaf) in enumerate(nnx.to_flat_state(nnx.state(critic, nnx.Param))):
        del path
        leaf[...] = leaf[...] + 0.1 * jax.random.normal(jax.random.key(seed), leaf.shape)
    graph, parameters = nnx.split(critic)
    rows = rows_of([[1, 2, 3, 4], [5, 6]])

    @jax.jit
    def outputs(parameters: nnx.State) -> tuple[jax.Array, ...]:
        critic = nnx.merge(graph, parameters)
        return *token_logprobs(critic.trunk, rows, 0.8), critic.values(rows)

    copy = frozen_copy(parameters, dtype)
    for found, expected in zip(outputs(copy), outputs(parameters), strict=True):
        np.testing.assert_array_equal(found, expected)
    types = {name: copy["trunk"]["layers"][name][...].dtype for name in ("q_proj", "down_proj", "input_layernorm")}
    assert types == {"q_proj": dtype, "down_proj": dtype, "input_layernorm": jnp.float32}
    assert copy["trunk"]["embed_tokens"][...].dtype == dtype and copy["value_head"][...].dtype == jnp.float32
    assert copy["trunk"]["norm"][...] is not parameters["trunk"]["norm"][...]


def test_separate_critic_has_the_values_of_the_whole_network_without_its_head(
    make_model: Callable[..., Transformer], rows_of: Callable[..., PackedBatch]
) -> None:
    config = replace(make_model().config, tie_word_embeddings=False)
    whole, own = (Critic(Transformer(config, nnx.Rngs(0))), separate_critic(Transformer(config, nnx.Rngs(0))))
    for critic in (whole, own):
        critic.value_head[...] = jnp.arange(32.0)
    rows = rows_of([[1, 2, 3, 4], [5, 6]])
    np.testing.assert_array_equal(*(nnx.jit(Critic.values)(critic, rows) for critic in (whole, own)))
    names = [{str(path[-1]) for path, _ in nnx.to_flat_state(nnx.state(each, nnx.Param))} for each in (whole, own)]
    assert names[0] - names[1] == {"lm_head"}
    assert separate_critic(make_model()).trunk.embed_tokens.shape == (64, 32)  # a tied head is the embedding


def hidden_of(critic: Critic, rows: PackedBatch) -> jax.Array:
    hidden = critic.trunk.hidden(jnp.asarray(rows.tokens), jnp.asarray(rows.positions), rows.layout)
    return gather_sources(hidden, jnp.asarray(rows.sources))
