"""Log-probs and entropies in chunks are those of a plain log-softmax, gradients too, in the memory of one chunk."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend.core import ClosedJaxpr, Jaxpr
from jaxtyping import PyTree

from mlagent_jax.model import logprob
from mlagent_jax.model.families.qwen2 import Qwen2Config
from mlagent_jax.model.logprob import gather_sources, token_logprobs
from mlagent_jax.model.packed_batch import PackedBatch
from mlagent_jax.model.transformer import Transformer

TEMPERATURE = 0.7


@pytest.fixture
def rows(rows_of: Callable[..., PackedBatch]) -> PackedBatch:
    rng = np.random.default_rng(0)
    return rows_of([rng.integers(0, 64, length).tolist() for length in (10, 7, 4)])


def plain(model: Transformer, rows: PackedBatch, temperature: float) -> tuple[jax.Array, jax.Array]:
    """Return what `token_logprobs` returns, from the logits of all predictions at once."""
    sources = jnp.asarray(rows.sources)
    hidden = gather_sources(model.hidden(jnp.asarray(rows.tokens), jnp.asarray(rows.positions), rows.layout), sources)
    every = jax.nn.log_softmax(model.logits(hidden) / temperature, axis=-1)
    return jnp.take_along_axis(every, rows.targets[..., None], -1)[..., 0], -jnp.sum(jnp.exp(every) * every, -1)


def loss_of(score: Callable, graph: nnx.GraphDef, rows: PackedBatch, temperature: float) -> Callable:
    """Return a function that mixes log-probs and entropies into one number, and returns them with it."""

    def loss(parameters: nnx.State) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        found = score(nnx.merge(graph, parameters), rows, temperature)
        return jnp.sum(rows.weights * (found[0] + 0.3 * found[1] ** 2)), found

    return loss


@pytest.mark.parametrize("num_predictions", [8, 27])  # at a time: three whole chunks and one filled up, or all
def test_chunks_give_the_values_and_gradients_of_a_plain_log_softmax(
    num_predictions: int, make_model: Callable[..., Transformer], rows: PackedBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    graph, parameters = nnx.split(model)
    monkeypatch.setattr(logprob, "CHUNK", num_predictions * model.config.vocab_size)
    assert rows.targets.size == 27
    found, expected = (
        jax.jit(jax.grad(loss_of(score, graph, rows, TEMPERATURE), has_aux=True))(parameters)
        for score in (token_logprobs, plain)
    )
    for a, b in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), found[0], expected[0])


def test_temperature_divides_the_logits(make_model: Callable[..., Transformer], rows: PackedBatch) -> None:
    graph, *states = nnx.split(make_model())
    parameters: PyTree = states[0]

    @partial(jax.jit, static_argnums=1)
    def score(parameters: PyTree, temperature: float) -> tuple[jax.Array, jax.Array]:
        return token_logprobs(nnx.merge(graph, parameters), rows, temperature)

    hot = score(parameters, 1e4)
    np.testing.assert_allclose(hot[0], -np.log(64), atol=1e-2)
    np.testing.assert_allclose(hot[1], np.log(64), atol=1e-2)
    softer = score(parameters, 2.0)
    parameters["norm"][...] = parameters["norm"][...] / (2.0 / 1e4)  # every logit times 5000
    for a, b in zip(score(parameters, 1e4), softer, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_no_array_as_large_as_the_logits_of_the_batch_exists(
    make_model: Callable[..., Transformer],
    rows_of: Callable[..., PackedBatch],
    tiny_config: Qwen2Config,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wide = replace(tiny_config, vocab_size=1000)
    rows = rows_of([[1] * 20] * 4)
    graph, parameters = nnx.split(make_model(wide))
    monkeypatch.setattr(logprob, "CHUNK", 8 * wide.vocab_size)
    largest = {
        score.__name__: max(sizes(jax.make_jaxpr(jax.grad(loss_of(score, graph, rows, 1.0), has_aux=True))(parameters)))
        for score in (token_logprobs, plain)
    }
    assert largest["token_logprobs"] == wide.vocab_size * wide.hidden_size  # the head and its gradient
    assert largest["plain"] == rows.targets.size * wide.vocab_size > largest["token_logprobs"]


def is_program(value: object) -> bool:
    return isinstance(value, ClosedJaxpr | Jaxpr)


def sizes(program: ClosedJaxpr | Jaxpr) -> Iterator[int]:
    """Yield the size of every intermediate array of a program and its inner programs."""
    for equation in getattr(program, "jaxpr", program).eqns:
        yield from (math.prod(getattr(variable.aval, "shape", ())) for variable in equation.outvars)
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=is_program):
            if is_program(inner):
                yield from sizes(inner)
