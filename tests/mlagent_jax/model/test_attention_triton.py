"""The kernels for NVIDIA GPUs: values and gradients are those of the plain formula, and they lower for real models."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractDevice, AbstractMesh

from mlagent_jax.model.attention.triton import triton_attention

# JAX 0.11 says so at every lowering
pytestmark = pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")

HOPPER = AbstractMesh((), (), abstract_device=AbstractDevice("NVIDIA H200", 132, "cuda"))
interpreted = partial(triton_attention, interpret=True)


@pytest.mark.parametrize("name", ["packed", "shared"])
def test_values_and_gradients_are_those_of_the_plain_formula(name: str, check_attention: Callable) -> None:
    check_attention(interpreted, name)


@pytest.mark.parametrize("name", ["packed", pytest.param("shared", marks=pytest.mark.slow)])
def test_queries_of_a_later_part_of_the_row_see_the_keys_of_all_of_it(name: str, check_attention: Callable) -> None:
    def from_150(q: jax.Array, k: jax.Array, v: jax.Array, ends: jax.Array) -> jax.Array:
        return jax.jit(partial(interpreted, q, k, v, ends))(jnp.int32(150))  # an offset the compiler does not know

    check_attention(from_150, name, first=150)


@pytest.mark.parametrize("head_dim", [80, pytest.param(64, marks=pytest.mark.slow)])
def test_bfloat16_loses_no_more_than_its_own_rounding(head_dim: int, check_attention: Callable) -> None:
    check_attention(interpreted, "shared", heads=(3, 1), head_dim=head_dim, dtype=jnp.bfloat16)


@pytest.mark.slow
@pytest.mark.parametrize(("heads", "head_dim"), [((2, 2), 64), ((7, 1), 96), ((14, 2), 128)])
def test_every_grouping_of_heads(heads: tuple[int, int], head_dim: int, check_attention: Callable) -> None:
    check_attention(interpreted, "shared", length=384, heads=heads, head_dim=head_dim)


@pytest.mark.parametrize("length", [8192, 16384])
@pytest.mark.parametrize("model", [(14, 2, 64), (12, 2, 128), (28, 4, 128)], ids=["0.5B", "1.5B", "7B"])
def test_forward_and_backward_lower_for_a_gpu(model: tuple[int, int, int], length: int) -> None:
    heads, kv_heads, head_dim = model

    def loss(q: jax.Array, k: jax.Array, v: jax.Array, ends: jax.Array, offset: jax.Array) -> jax.Array:
        return triton_attention(q, k, v, ends, offset).astype(jnp.float32).sum()

    q, k = (jax.ShapeDtypeStruct((2, length, n, head_dim), jnp.bfloat16) for n in (heads, kv_heads))
    ends, offset = jax.ShapeDtypeStruct((2, length), jnp.int32), jax.ShapeDtypeStruct((), jnp.int32)
    with jax.sharding.use_abstract_mesh(HOPPER):
        traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(q, k, k, ends, offset)
        program = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert all(f"attention_{kernel}" in program for kernel in ("forward", "dq", "dkv"))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("head_dim", [32, 64, 80, 128])
@pytest.mark.parametrize("name", ["packed", "shared"])
def test_compiled_kernels_on_a_gpu(name: str, head_dim: int, dtype: jnp.dtype, check_attention: Callable) -> None:
    check_attention(triton_attention, name, length=1500, heads=(14, 2), head_dim=head_dim, dtype=dtype)
