"""The cost of a compiled module equals that of products counted by hand; a loop costs what its unrolled form does."""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mlagent_jax.aot import cost
from mlagent_jax.aot.compiled import compile_program
from mlagent_jax.aot.cost import Cost, costs
from mlagent_jax.aot.hlo import parse
from mlagent_jax.aot.programs import Program
from mlagent_jax.model import transformer
from mlagent_jax.model.families.qwen2 import Qwen2Config
from mlagent_jax.model.packed_batch import RowBuilder, stack_rows
from mlagent_jax.model.placement import abstract_batch
from mlagent_jax.model.sharding import make_mesh
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.sft.step import make_sft_step
from mlagent_jax.training.optimizer import make_optimizer
from mlagent_jax.training.train_state import abstract_state


def text_of(function: Callable, *arguments: Any) -> str:
    return jax.jit(function).lower(*arguments).compile().as_text()


def flops(found: Sequence[Cost]) -> float:
    return sum(each.trips * each.flops for each in found)


def sent(found: Sequence[Cost]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for each in found:
        if each.sent is not None:
            total[each.sent.kind] += each.trips * each.sent.num_bytes
    return total


def test_products_inside_nested_loops_count_as_often_as_they_run() -> None:
    def inner(x: jax.Array, _: None) -> tuple[jax.Array, None]:
        return jnp.tanh(x @ jnp.ones((32, 32))), None

    def outer(x: jax.Array, weight: jax.Array) -> tuple[jax.Array, None]:
        return jax.lax.scan(inner, x @ weight, None, length=3)[0], None

    text = text_of(lambda x, weights: jax.lax.scan(outer, x, weights)[0], jnp.ones((8, 32)), jnp.ones((5, 32, 32)))
    assert flops(costs(parse(text))) == 2 * 8 * 32 * 32 * 5 * (1 + 3)


def test_batched_product_counts_its_batch_and_the_branch_that_costs_more() -> None:
    def function(which: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
        return jax.lax.cond(which, lambda: jnp.einsum("gij,gjk->gik", a, b), lambda: a @ jnp.ones((7, 3)))

    text = text_of(function, jnp.array(True), jnp.ones((4, 5, 7)), jnp.ones((4, 7, 3)))
    assert flops(costs(parse(text))) == 2 * 4 * 5 * 7 * 3


@pytest.mark.parametrize("step", [1, 2, 3])
def test_loop_whose_body_does_several_rounds_runs_as_much_less_often(step: int) -> None:
    def body(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return state[0] + step, jnp.tanh(state[1] @ jnp.ones((32, 32)))

    text = text_of(lambda x: jax.lax.while_loop(lambda state: state[0] < 16, body, (4, x))[1], jnp.ones((8, 32)))
    noted = re.findall(r'"known_trip_count":\{"n":"\d+"\}', text)
    # the TPU compiler does not note it of the loops it makes to send and multiply at the same time
    unnoted = text.replace(noted[0], '"unknown":"0"')
    assert flops(costs(parse(unnoted))) == flops(costs(parse(text))) == 2 * 8 * 32 * 32 * -(-12 // step)


def test_loop_of_unknown_length_is_an_error() -> None:
    text = text_of(lambda x: jax.lax.while_loop(lambda y: jnp.sum(y) < 9.0, lambda y: y * 2.0, x), jnp.ones((4,)))
    with pytest.raises(ValueError, match="the number of trips of the loop .* is unknown"):
        costs(parse(text))


@pytest.mark.parametrize(
    ("kind", "function", "factor"),
    [
        ("all-gather", partial(jax.lax.all_gather, axis_name="fsdp"), 3.0),
        ("reduce-scatter", partial(jax.lax.psum_scatter, axis_name="fsdp"), 3 / 4),
        ("all-reduce", partial(jax.lax.psum, axis_name="fsdp"), 2 * 3 / 4),
        ("all-to-all", partial(jax.lax.all_to_all, axis_name="fsdp", split_axis=0, concat_axis=0), 3 / 4),
        (
            "collective-permute",
            partial(jax.lax.ppermute, axis_name="fsdp", perm=[(i, (i + 1) % 4) for i in range(4)]),
            1.0,
        ),
    ],
)
def test_bytes_that_a_device_sends_are_those_of_a_ring(kind: str, function: Callable, factor: float) -> None:
    def looped(x: jax.Array) -> jax.Array:
        return jax.lax.map(lambda each: function(each).sum(axis=0), x)

    mesh = make_mesh(1, 4, 2, 1)
    sharded = jax.shard_map(looped, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
    x = jax.ShapeDtypeStruct((6, 4, 10), jnp.float32, sharding=NamedSharding(mesh, P()))
    found = sent(costs(parse(text_of(sharded, x))))
    assert found == {kind: 6 * factor * 4 * 10 * 4}


def compile_both(monkeypatch: pytest.MonkeyPatch, config: Qwen2Config, mesh: Mesh) -> tuple[str, str]:
    """Return the text of the compiled step with the layers as a loop, and unrolled."""
    texts = []
    for unrolled in (0, config.num_layers):
        monkeypatch.setattr(transformer, "UNROLLED", unrolled)
        model = nnx.eval_shape(lambda: Transformer(config, nnx.Rngs(0), remat="layer", mesh=mesh))
        optimizer = make_optimizer("adamw", 1e-3, 1.0)
        state = abstract_state(model, optimizer, mesh)
        rows = abstract_batch(stack_rows([RowBuilder()] * 16, 64, 32), mesh)
        step = make_sft_step(nnx.split(model)[0], optimizer, state, num_micro_batches=2)
        program = Program("sft step", step, (state, rows), (), 0.0, None)
        texts.append(compile_program(program).text)
    return texts[0], texts[1]


@pytest.mark.parametrize("num_layers", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_loop_over_layers_costs_what_the_layers_cost_written_out(
    tiny_config: Qwen2Config, num_layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = compile_both(monkeypatch, replace(tiny_config, num_layers=num_layers), make_mesh(1, 8, 1, 1))
    loop, written_out = (costs(parse(text)) for text in texts)
    np.testing.assert_allclose(flops(loop), flops(written_out), rtol=0.01)
    in_loop, in_line = sent(loop), sent(written_out)
    # Written out, the compiler gathers some weights once for the forward pass and its recomputation, a loop twice.
    gathered = in_loop.pop("all-gather")
    assert gathered / 2 < in_line.pop("all-gather") <= gathered
    np.testing.assert_allclose(sum(in_loop.values()), sum(in_line.values()), rtol=0.03)
    monkeypatch.setattr(cost, "trip_count", lambda *_: 1)  # as XLA's own analysis counts
    assert flops(costs(parse(texts[0]))) < 0.7 * flops(written_out)


# The TPU compiler's own forms, cut from modules it compiled.
COLLECTIVES = """
HloModule cut, num_partitions=64

%all-reduce-scatter.7 (input: bf16[256,8]) -> bf16[64,8] {
  %input = bf16[256,8]{1,0:T(8,128)(2,1)} parameter(0)
  %all-reduce.1 = bf16[256,8]{1,0:T(8,128)(2,1)} all-reduce(%input), replica_groups={{0,2,4,6},{1,3,5,7}}, to_apply=%add
  %start = s32[] constant(0)
  ROOT %dynamic-slice.1 = bf16[64,8]{1,0} dynamic-slice(%all-reduce.1, %start, %start), dynamic_slice_sizes={64,8}
}

%starts (part: f32[10]) -> f32[40] {
  %part = f32[10]{0:T(128)} parameter(0)
  %all-gather.1 = f32[40]{0} all-gather(%part), replica_groups=[16,4]<=[64], frontend_attributes={chain_id="0"}
  ROOT %custom-call.1 = f32[40]{0} custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%carries (part: f32[10], whole: f32[40]) -> f32[40] {
  %part = f32[10]{0:T(128)} parameter(0)
  %whole = f32[40]{0:T(128)} parameter(1)
  ROOT %all-gather.2 = f32[40]{0} all-gather(%part), replica_groups=[16,4]<=[64], frontend_attributes={chain_id="0"}
}

ENTRY %main (a: bf16[256,8], b: f32[10]) -> f32[40] {
  %a = bf16[256,8]{1,0} parameter(0)
  %b = f32[10]{0} parameter(1)
  %fusion.1 = bf16[64,8]{1,0} fusion(%a), kind=kCustom, calls=%all-reduce-scatter.7
  %fusion.2 = f32[40]{0} fusion(%b), kind=kCustom, calls=%starts
  %all-reduce.2 = bf16[256,8]{1,0} all-reduce(%a), replica_groups=mesh['x'=4,'y'=16] {'y':(2)8}, to_apply=%add
  ROOT %fusion.3 = f32[40]{0} fusion(%b, %fusion.2), kind=kCustom, calls=%carries
}
"""


def test_collectives_in_the_forms_of_the_tpu_compiler_count_once() -> None:
    found = sent(costs(parse(COLLECTIVES)))
    a, b = 256 * 8 * 2, 10 * 4
    assert found == {"reduce-scatter": a * 3 / 4, "all-gather": b * 3, "all-reduce": a * 2 * 7 / 8}


CONVOLUTION = """
ENTRY %main (q: bf16[2,3,256,64], k: bf16[2,3,512,64]) -> f32[2,3,256,512] {
  %q = bf16[2,3,256,64]{3,2,1,0:T(8,128)(2,1)S(1)} parameter(0)
  %k = bf16[2,3,512,64]{3,2,1,0:T(8,128)(2,1)} parameter(1)
  ROOT %s = f32[2,3,256,512]{3,2,1,0} convolution(%q, %k), window={WINDOW}, dim_labels=01bf_01oi->01bf
}
"""


def test_batch_dims_that_became_a_dilated_window_count_once() -> None:
    (found,) = costs(parse(CONVOLUTION.replace("WINDOW", "size=2x3 lhs_dilate=2x3")))
    assert found.flops == 2 * 2 * 3 * 256 * 512 * 64
    assert found.hbm_bytes == 2 * 3 * 512 * (64 * 2 + 256 * 4)  # q lies in the chip's vector memory


UPDATE = """
%body (stack: f32[28,100], new: f32[100], at: s32[]) -> f32[28,100] {
  %stack = f32[28,100]{1,0} parameter(0)
  %new = f32[100]{0} parameter(1)
  %at = s32[] parameter(2)
  %zero = s32[] constant(0)
  %old = f32[1,100]{1,0} dynamic-slice(%stack, %at, %zero), dynamic_slice_sizes={1,100}
  %row = f32[1,100]{1,0} bitcast(%new)
  %sum = f32[1,100]{1,0} add(%old, %row)
  ROOT %written = f32[28,100]{1,0} dynamic-update-slice(%stack, %sum, %at, %zero)
}

ENTRY %main (stack: f32[28,100], new: f32[100], at: s32[]) -> f32[28,100] {
  %stack = f32[28,100]{1,0} parameter(0)
  %new = f32[100]{0} parameter(1)
  %at = s32[] parameter(2)
  ROOT %fusion = f32[28,100]{1,0} fusion(%stack, %new, %at), kind=kLoop, calls=%body
}
"""


def test_of_a_stack_that_is_updated_in_place_only_the_row_moves() -> None:
    (found,) = costs(parse(UPDATE))
    assert found.hbm_bytes == 3 * 100 * 4 + 4  # the old row, the new one, what is written, the index
