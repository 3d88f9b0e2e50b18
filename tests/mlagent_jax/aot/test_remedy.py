"""The settings that make a program fit."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mlagent_jax.aot.chips import CHIPS
from mlagent_jax.aot.programs import Program
from mlagent_jax.aot.remedy import remedy
from mlagent_jax.model.sharding import make_mesh
from mlagent_jax.model.transformer import Remat
from tasks.units import GIB

H100 = CHIPS["h100"]


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return make_mesh(1, 1, 1, 1)


@pytest.mark.parametrize(
    ("change", "missing", "server", "remat", "expected"),
    [
        ({}, 5, 10, "layer", "10.0 GiB are the policy server's: lower server.kv_cache_mb"),
        ({"resident": 50}, 5, 0, "layer", "50.0 GiB are parameters and optimizer state: raise mesh.fsdp"),
        ({"resident": 50, "moments": 20}, 5, 1, "layer", "or set optimizer_state.offload=true (20.0 GiB)"),
        ({"resident": 50, "critic": 30}, 5, 0, "layer", "or set ppo.critic=shared (30.0 GiB)"),
        ({"rows_key": None}, 5, 0, "layer", "0.0 GiB are parameters and optimizer state: raise mesh.fsdp"),
        ({}, 5, 0, "none", "set model.remat=layer"),
        ({}, 5, 0, "layer", "lower sft.batch_size, or raise mesh.fsdp"),
        ({"rows_key": "sft.max_length"}, 5, 0, "layer", "lower sft.max_length, or raise mesh.tensor"),
        ({}, math.inf, 10, "layer", "lower sft.batch_size"),
    ],
)
def test_the_remedy_is_what_saves_enough(
    mesh: Mesh, change: dict[str, object], missing: float, server: float, remat: Remat, expected: str
) -> None:
    def array(gib: object) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((gib, GIB), jnp.int8, sharding=NamedSharding(mesh, P()))

    arrays = {key: array(value) if isinstance(value, int) else value for key, value in change.items()}
    program = replace(Program("step", jax.jit(jnp.sum), (), (), 0.0, "sft.batch_size"), **arrays)
    assert expected in remedy(program, H100, remat, missing * GIB, round(server * GIB))


def test_settings_that_save_too_little_are_not_advised(mesh: Mesh) -> None:
    held = jax.ShapeDtypeStruct((50, GIB), jnp.int8, sharding=NamedSharding(mesh, P()))
    small = jax.ShapeDtypeStruct((4, GIB), jnp.int8, sharding=NamedSharding(mesh, P()))
    program = Program("step", jax.jit(jnp.sum), (), held, 0.0, "sft.batch_size", moments=small, critic=small)
    advice = remedy(program, H100, "layer", 5 * GIB, server=4 * GIB)
    assert advice.endswith("raise mesh.fsdp on a larger topology")
