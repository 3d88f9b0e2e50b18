"""The tolerances tell rounding from real faults, planted in a small network that rounds about as much as a real one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jaxtyping import PyTree

from mlagent_jax.model.families.qwen2 import Qwen2Config
from mlagent_jax.model.logprob import token_logprobs
from mlagent_jax.model.packed_batch import PackedBatch
from mlagent_jax.model.transformer import Transformer
from rollout.inference.agreement import Difference, difference, tolerance_for

TF32, BF16 = 10, 7  # bits of the mantissa


@pytest.fixture(scope="module")
def network(tiny_config: Qwen2Config) -> Transformer:
    return Transformer(replace(tiny_config, num_layers=4), nnx.Rngs(0))


@pytest.fixture(scope="module")
def rows(rows_of: Callable[..., PackedBatch]) -> PackedBatch:
    return rows_of(np.random.default_rng(0).integers(0, 64, (4, 128)).tolist())


@contextmanager
def rounded_operands(bits: int) -> Iterator[None]:
    """Round the operands of all products of the forward pass."""
    einsum = jnp.einsum

    def rounded(equation: str, *operands: Any, **settings: Any) -> jax.Array:
        return einsum(equation, *(jax.lax.reduce_precision(x, 8, bits) for x in operands), **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jnp, "einsum", rounded)
        yield


def logprobs(network: Transformer, rows: PackedBatch, parameters: PyTree | None = None, dtype: str = "float32") -> Any:
    graph = nnx.split(Transformer(network.config, nnx.Rngs(0), dtype))[0]
    parameters = nnx.state(network, nnx.Param) if parameters is None else parameters
    return np.asarray(jax.jit(lambda p: token_logprobs(nnx.merge(graph, p), rows)[0])(parameters))


@pytest.fixture(scope="module")
def exact(network: Transformer, rows: PackedBatch) -> np.ndarray:
    return logprobs(network, rows)


def test_rounding_of_each_type_is_within_its_tolerance_and_coarser_rounding_is_not(
    network: Transformer, rows: PackedBatch, exact: np.ndarray
) -> None:
    def against(dtype: str = "float32", bits: int | None = None) -> Difference:
        if bits is None:
            return difference(exact, logprobs(network, rows, dtype=dtype))
        with rounded_operands(bits):
            return difference(exact, logprobs(network, rows))

    assert against(bits=TF32).is_within(tolerance_for("float32")) and against(bits=TF32).mean > 1e-5
    assert not against(bits=BF16).is_within(tolerance_for("float32"))
    assert against(bits=BF16).is_within(tolerance_for("bfloat16"))
    assert against("bfloat16").is_within(tolerance_for("bfloat16"))
    assert not against("bfloat16").is_within(tolerance_for("float32"))


def test_faults_are_no_rounding(
    network: Transformer, rows: PackedBatch, exact: np.ndarray, tiny_config: Qwen2Config
) -> None:
    state = nnx.state(network, nnx.Param)

    def without(*names: str) -> PyTree:
        changed = jax.tree.map(lambda leaf: leaf, state)
        for name in names:
            changed["layers"][name] = changed["layers"][name].replace(changed["layers"][name][...].at[1].set(0.0))
        return changed

    moved = jax.tree.map(lambda leaf: leaf + 0.02 * jnp.sign(jnp.sin(1e3 * leaf)), state)
    other = nnx.state(Transformer(network.config, nnx.Rngs(1)), nnx.Param)
    faults = {
        "down_proj": without("down_proj"),
        "layer": without("down_proj", "o_proj"),
        "stale": moved,
        "other": other,
    }
    for name, parameters in faults.items():
        found = difference(exact, logprobs(network, rows, parameters))
        assert not found.is_within(tolerance_for("bfloat16")), (name, found)
