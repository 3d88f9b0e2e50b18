"""The kernels for TPUs: values and gradients are those of the plain formula, and they compile for real pods."""

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mlagent_jax.model.attention.mosaic import block_for
from mlagent_jax.model.attention.splash import splash_attention
from mlagent_jax.model.attention.visits import seen_blocks

LIBTPU = Path(os.environ.get("TPU_LIBRARY_PATH", Path(sys.prefix) / "opt/libtpu/libtpu/libtpu.so"))


@pytest.mark.parametrize(
    ("name", "shared"), [("packed", False), ("shared", True), pytest.param("packed", True, marks=pytest.mark.slow)]
)
def test_values_and_gradients_are_those_of_the_plain_formula(
    name: str, shared: bool, check_attention: Callable
) -> None:
    check_attention(partial(splash_attention, shared=shared, interpret=True), name)


@pytest.mark.parametrize("name", ["shared", pytest.param("packed", marks=pytest.mark.slow)])
def test_queries_of_a_later_part_of_the_row_see_the_keys_of_all_of_it(name: str, check_attention: Callable) -> None:
    def from_150(q: jax.Array, k: jax.Array, v: jax.Array, ends: jax.Array) -> jax.Array:
        attend = partial(splash_attention, q, k, v, ends, name == "shared", interpret=True)
        return jax.jit(lambda offset: attend(offset=offset))(jnp.int32(150))  # an offset the compiler does not know

    check_attention(from_150, name, first=150)


@pytest.mark.parametrize("shared", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("head_dim", [64, pytest.param(128, marks=pytest.mark.slow)])
def test_bfloat16_loses_no_more_than_its_own_rounding(head_dim: int, shared: bool, check_attention: Callable) -> None:
    attend = partial(splash_attention, shared=shared, interpret=True)
    check_attention(attend, "shared" if shared else "packed", heads=(3, 1), head_dim=head_dim, dtype=jnp.bfloat16)


@pytest.mark.slow
@pytest.mark.parametrize("shared", [False, True])
def test_rows_of_several_large_blocks(shared: bool, check_attention: Callable) -> None:
    attend = partial(splash_attention, shared=shared, interpret=True)
    check_attention(attend, "shared" if shared else "packed", length=1200, heads=(14, 2), head_dim=64)


@pytest.mark.parametrize("name", ["packed", "shared"])
@pytest.mark.parametrize(("first", "query_block", "key_block"), [(0, 32, 32), (0, 16, 8), (160, 4, 64)])
def test_blocks_seen_whole_are_seen_whole_and_blocks_not_seen_are_not(
    name: str,
    first: int,
    query_block: int,
    key_block: int,
    attention_rows: Callable,
) -> None:
    mask, ends = attention_rows(name, 320)
    seen = np.asarray(seen_blocks(jnp.asarray(ends), jnp.int32(first), 320 - first, query_block, key_block))
    blocks = mask[:, first:].reshape(2, seen.shape[1], query_block, seen.shape[2], key_block)
    np.testing.assert_array_equal(seen == 0, blocks.all((2, 4)))
    assert not blocks.any((2, 4))[seen == 2].any()
    assert np.mean(seen == 2) > 0.9 * np.mean(~blocks.any((2, 4)))  # and few are visited in vain


@pytest.mark.parametrize(("length", "block"), [(1, 128), (290, 128), (1100, 256), (4096, 512), (15360, 1024)])
def test_blocks_are_large_where_the_row_grows_little_by_it(length: int, block: int) -> None:
    assert block_for(length, 1024) == block


@pytest.mark.slow
@pytest.mark.skipif(not LIBTPU.exists(), reason=f"the TPU compiler, libtpu.so, is not at {LIBTPU}")
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    ("topology", "length", "heads", "head_dim", "tensor"),
    [("v5e:2x2", 16384, (28, 4), 128, 2), ("v5p:2x2x2", 15360, (28, 4), 128, 4), ("v6e:2x2", 8192, (14, 2), 64, 2)],
)
def test_forward_and_backward_compile_for_a_pod(
    topology: str,
    length: int,
    heads: tuple[int, int],
    head_dim: int,
    tensor: int,
    shared: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TPU_LIBRARY_PATH", str(LIBTPU))
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "true")  # two compilers do not fight over a TPU that is not there
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    mesh = Mesh(np.array(devices).reshape(-1, tensor), ("fsdp", "tensor"), axis_types=(AxisType.Auto,) * 2)
    by_head, by_row = P("fsdp", None, "tensor", None), P("fsdp", None)

    def with_gradients(q: jax.Array, k: jax.Array, v: jax.Array, ends: jax.Array) -> tuple[jax.Array, ...]:
        out, backward = jax.vjp(lambda *x: splash_attention(*x, ends, shared), q, k, v)
        return out, *backward(out)

    def shape(*sizes: int, dtype: jnp.dtype = jnp.bfloat16, spec: P = by_head) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((mesh.shape["fsdp"], *sizes), dtype, sharding=NamedSharding(mesh, spec))

    local = jax.shard_map(
        with_gradients, mesh=mesh, in_specs=(by_head,) * 3 + (by_row,), out_specs=by_head, check_vma=False
    )
    q, k = (shape(length, n, head_dim) for n in heads)
    compiled = jax.jit(local).lower(q, k, k, shape(length, dtype=jnp.int32, spec=by_row)).compile()
    memory = compiled.memory_analysis()
    assert memory.temp_size_in_bytes < 200e6  # a mask of 16384 by 16384 would have over 1e9 bytes
