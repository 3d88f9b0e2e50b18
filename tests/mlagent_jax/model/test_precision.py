"""No program of a float32 network has a matrix product whose operands a GPU or TPU would round."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mlagent_jax.aot.programs import Program, ppo_programs, sft_programs
from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import Config, Tokenizer
from mlagent_jax.model import attention, logprob, matmul, transformer
from mlagent_jax.model.attention import blockwise, mosaic, triton
from mlagent_jax.model.build import abstract_model, model_config
from mlagent_jax.model.policy import ExportedPolicy
from mlagent_jax.model.sharding import make_mesh
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.ppo import advantage

SMALL = load_config(None, ["model.path=null", "model.dtype=float32", "sft.optimizer=muon", "ppo.critic=separate"])
CONFIG = replace(
    SMALL,
    tokenizer=Tokenizer(vocab_size=64),
    sft=replace(SMALL.sft, max_length=128, batch_size=2, rows_per_micro_batch=1),
    ppo=replace(SMALL.ppo, row_length=128, max_response_tokens=8, kl_in="loss", kl_estimator="k2"),
)
PLATFORMS = ("cpu", "gpu", "tpu")


def programs(config: Config) -> list[Program]:
    mesh = make_mesh(1, 1, 1, 1)
    shape = model_config(config.model, 64, 0, 128)
    model = abstract_model(shape, config.model, mesh)
    return [
        *sft_programs(model, config.sft, config.optimizer_state, mesh),
        *ppo_programs(model, config.ppo, config.optimizer_state, mesh),
        *ppo_programs(model, replace(config.ppo, critic="shared"), config.optimizer_state, mesh),
    ]


def with_dtype(dtype: str) -> Config:
    sizes = {"num_layers": 2, "hidden_size": 128, "num_heads": 2, "num_kv_heads": 1, "intermediate_size": 96}
    return replace(CONFIG, model=replace(CONFIG.model, dtype=dtype, rope_theta=1e4, tie_word_embeddings=True, **sizes))


def equations(jaxpr: Any, in_kernels: bool) -> Iterator[Any]:
    """All equations of a program, in loops and differentiated functions, and in Pallas kernels if these are wanted."""
    for equation in jaxpr.eqns:
        yield equation
        if equation.primitive.name == "pallas_call" and not in_kernels:
            continue
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner, in_kernels)


def products(jaxpr: Any, dtype: Any, in_kernels: bool = True) -> list[Any]:
    """The products with an operand of a type."""
    found = [
        each for each in equations(jaxpr, in_kernels) if each.primitive.name in ("dot_general", "conv_general_dilated")
    ]
    return [each for each in found if dtype in [var.aval.dtype for var in each.invars]]


def is_exact(equation: Any) -> bool:
    precision = equation.params["precision"]
    return precision == jax.lax.Precision.HIGHEST or precision == (jax.lax.Precision.HIGHEST,) * 2


def on(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "platform_of", lambda mesh: platform)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_float32_operands_are_rounded_nowhere(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    on(platform, monkeypatch)
    for program in programs(with_dtype("float32")):
        found = products(program.function.trace(*program.arguments).jaxpr.jaxpr, jnp.float32)
        assert found or program.name.endswith("apply"), program.name
        assert all(map(is_exact, found)), (
            program.name,
            [str(each.source_info) for each in found if not is_exact(each)],
        )


@pytest.mark.parametrize("platform", PLATFORMS)
def test_products_of_bfloat16_keep_the_default(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    on(platform, monkeypatch)
    for program in programs(with_dtype("bfloat16")):
        traced = program.function.trace(*program.arguments).jaxpr.jaxpr
        # Triton's kernels state the precision for both types, and JAX's splash attention states none.
        if platform != "tpu":
            assert all(map(is_exact, products(traced, jnp.float32, in_kernels=False))), program.name  # value head, muon
        rounded = products(traced, jnp.bfloat16, in_kernels=False)
        assert rounded or program.name.endswith("apply"), program.name
        assert not any(map(is_exact, rounded)), program.name


@pytest.mark.parametrize(
    ("module", "name"),
    [(matmul, "product"), (logprob, "product"), (blockwise, "product"), (transformer, "product")],
)
def test_a_product_left_at_the_default_is_found(
    module: Any, name: str, make_model: Callable[..., Transformer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def rounded(equation: str, a: Any, b: Any, out: Any = None) -> Any:
        return jnp.einsum(equation, a, b, preferred_element_type=out)

    monkeypatch.setattr(module, name, rounded)
    graph, parameters = nnx.split(make_model())
    tokens, layout = jnp.zeros((1, 8), jnp.int32), attention.padded_layout(jnp.array([8]), 8)

    def loss(parameters: Any) -> jax.Array:
        model = nnx.merge(graph, parameters)
        hidden = model.hidden(tokens, tokens, layout)
        return logprob.target_logprobs(model, hidden, tokens)[0].sum() + model.logits(hidden).sum()

    traced = jax.jit(jax.grad(loss)).trace(parameters)
    assert not all(map(is_exact, products(traced.jaxpr.jaxpr, jnp.float32)))


@pytest.mark.parametrize(("platform", "kernels"), [("gpu", triton), ("tpu", mosaic)])
def test_a_product_left_at_the_default_in_a_kernel_is_found(
    platform: str, kernels: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rounded(a: jax.Array, b: jax.Array, dims: Any = (((1,), (0,)), ((), ()))) -> jax.Array:
        return jax.lax.dot_general(a, b, dims, preferred_element_type=jnp.float32)

    on(platform, monkeypatch)
    monkeypatch.setattr(kernels, "_dot", rounded)
    jax.clear_caches()  # of the kernels as they are
    for program in programs(with_dtype("float32")):
        if not program.name.endswith("apply"):
            jaxpr = program.function.trace(*program.arguments).jaxpr.jaxpr
            assert not all(map(is_exact, products(jaxpr, jnp.float32))), program.name
            assert all(map(is_exact, products(jaxpr, jnp.float32, in_kernels=False))), program.name
    jax.clear_caches()


@pytest.mark.parametrize(("platform", "target"), [("gpu", "cuda"), ("cpu", "tpu")])
def test_lowered_modules_state_the_precision(platform: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower without an accelerator; kernels for TPUs are lowered only for a known chip."""
    on(platform, monkeypatch)
    for program in programs(with_dtype("float32")):
        text = program.function.trace(*program.arguments).lower(lowering_platforms=(target,)).as_text()
        dots = re.findall(r"stablehlo\.(?:dot_general|convolution).*", text)
        exact = [dot for dot in dots if "precision = [HIGHEST, HIGHEST]" in dot]
        assert exact == [dot for dot in dots if "xf32>" in dot.partition("->")[0]], program.name
        assert exact or program.name.endswith("apply"), program.name


def test_programs_outside_of_training_are_exact_too(
    make_model: Callable[..., Transformer], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = ExportedPolicy(make_model())
    traced = policy._logits.trace(policy._parameters, np.zeros((1, 16), np.int32))
    found = products(traced.jaxpr.jaxpr, jnp.float32)
    values, groups = jnp.zeros((4, 3)), jnp.ones((2, 4))
    for each in (advantage.group_advantages, advantage.normalized_group_advantages, advantage.leave_one_out_advantages):
        found += products(jax.jit(each).trace(values, values, groups).jaxpr.jaxpr, jnp.float32)
    assert len(found) > 10 and all(map(is_exact, found))
