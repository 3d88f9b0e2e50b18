"""The output and exit status of the command that compiles for TPUs ahead of time; slow tests use the TPU compiler."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mlagent_jax import compile as command
from mlagent_jax.aot.chips import CHIPS
from mlagent_jax.aot.compiled import compile_program, exhausted, report_program
from mlagent_jax.aot.cost import Cost, costs
from mlagent_jax.aot.hlo import parse
from mlagent_jax.aot.programs import Program
from mlagent_jax.aot.roofline import roofline
from mlagent_jax.aot.topology import find_compiler
from mlagent_jax.aot.traffic import Sent
from mlagent_jax.compile import training_programs
from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import ConfigError
from mlagent_jax.model import transformer
from mlagent_jax.model.sharding import make_mesh
from tasks.units import GIB

SMALL = [
    "topology=v5e:2x2",
    "mesh.fsdp=4",
    "model.dtype=bfloat16",
    "sft.max_length=256",
    "sft.batch_size=4",
    "ppo.advantage=gae",
    "ppo.row_length=256",
    "ppo.rows_per_micro_batch=4",
    "ppo.max_response_tokens=64",
    "server.max_model_len=256",
]

WIDE = [
    *("topology=v5e:4x4", "mesh.fsdp=8", "mesh.tensor=2", "model.dtype=bfloat16", "model.num_layers=1"),
    *("model.hidden_size=1024", "model.num_heads=8", "model.intermediate_size=4096"),
    *("sft.max_length=2048", "sft.batch_size=8", "ppo.rows_per_micro_batch=8"),
]


@pytest.fixture
def slice_mesh() -> Mesh:
    """Four chips of v5e, described by the TPU compiler."""
    try:
        find_compiler("v5e:2x2")
    except ConfigError as error:
        pytest.skip(str(error))
    devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices
    return make_mesh(1, 4, 1, 1, devices)


def abstract(mesh: Mesh, *shape: int, dtype: Any = jnp.bfloat16, axis: str | None = "fsdp") -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, P(axis)))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "got 0 topologies, expected one; give it as topology=h100:8"),
        (["topology=v5e:2x2", "topology=v5p:2x2x2"], "got 2 topologies"),
        (
            ["topology=h90:8"],
            "unknown generation 'h90'; use one of v5e, v5p, v6e, a100, h100, h200, b200",
        ),
        (["topology=v5e:2x2", "mesh.fdsp=4"], "unknown key mesh.fdsp; did you mean mesh.fsdp?"),
        (["topology=v5e:2x2", "--config", "nowhere.yaml"], "nowhere.yaml: No such file or directory"),
    ],
)
def test_bad_command_line_is_one_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(arguments) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_missing_compiler_is_one_line_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TPU_LIBRARY_PATH", str(tmp_path / "libtpu.so"))
    assert command.main(["topology=v5e:2x2"]) == 2
    assert (
        "no such file, expected the TPU compiler libtpu.so; install it by make tpu-compiler" in capsys.readouterr().err
    )


def test_the_compilers_complaint_is_told_by_its_figures() -> None:
    message = (
        "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
        "temporaries (24.28G) exceeds available HBM (15.75G). HLO module: jit_step.\nSee https://openxla.org/xla"
    )
    assert exhausted(message) == "does not fit: the compiler needs 24.28 GiB and has 15.75 GiB"


def test_time_is_that_of_the_slower_of_computing_and_loading_in_each_instruction() -> None:
    chip = CHIPS["v5e"]
    computes = cost_of(trips=3, flops=chip.flops, hbm_bytes=0.5 * chip.hbm_bandwidth)
    loads = cost_of(flops=0.25 * chip.flops, hbm_bytes=chip.hbm_bandwidth)
    sends = cost_of(trips=2, sent=Sent("all-gather", chip.link_bandwidth, ((0, 1),), overlaps=True))
    found = roofline([computes, loads, sends], chip, model_flops=2 * chip.flops)
    assert (found.compute_seconds, found.memory_seconds, found.collective_seconds) == (3.25, 2.5, 2.0)
    assert (found.overlapped_seconds, found.serial_seconds) == (4.0, 6.0)
    assert (found.overlapped_utilization, found.serial_utilization) == (0.5, 2 / 6)
    assert found.collective_bytes == {"all-gather": 2 * chip.link_bandwidth}
    assert found.overlapping_bytes == 2 * chip.link_bandwidth


def cost_of(**values: Any) -> Cost:
    return Cost(**{"name": "one", "trips": 1, **values})


@pytest.mark.slow
def test_every_program_of_a_configuration_is_told(slice_mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([*SMALL, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    names = [program["program"] for program in found["programs"]]
    of_ppo = [f"{network} {part}" for network in ("policy", "critic") for part in ("score", "gradients", "apply")]
    assert names == ["sft step", "sft evaluation", *of_ppo]
    for program in found["programs"]:
        memory, bounds = program["memory"], program["roofline"]
        assert program["verdict"].startswith("fits:") and program["remedy"] is None
        assert memory["arguments"] > 0 and memory["peak"] < 16 * GIB
        assert ("apply" in program["program"]) == (bounds["overlapped_utilization"] == 0)
        assert bounds["overlapped_utilization"] < 1 and bounds["serial_seconds"] >= bounds["overlapped_seconds"]


@pytest.mark.slow
@pytest.mark.parametrize(("told", "apart"), [("", False), ("--xla_jf_spmd_threshold_for_windowed_einsum_mib=0", True)])
def test_products_are_not_taken_apart_unless_the_user_says_so(slice_mesh: Mesh, told: str, apart: bool) -> None:
    program = f"""
from mlagent_jax.aot.compiled import compile_program
from mlagent_jax.aot.topology import find_compiler, topology_mesh
from mlagent_jax.compile import parse_arguments, training_programs
config, topology, _ = parse_arguments({WIDE})
find_compiler(topology)
program = training_programs(config, topology_mesh(config.mesh, topology))[0]
print("windowed_dot_general" in compile_program(program).text)
"""
    environment = {key: value for key, value in os.environ.items() if key != "LIBTPU_INIT_ARGS"}
    said = subprocess.run(
        [sys.executable, "-c", program], env=environment | {"LIBTPU_INIT_ARGS": told}, capture_output=True, text=True
    )
    assert said.stdout.strip().endswith(str(apart)), said.stderr


@pytest.mark.slow
def test_mesh_of_another_size_than_the_slice_is_refused(slice_mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([*SMALL, "mesh.data=2", "sft.batch_size=8", "ppo.rows_per_micro_batch=8"]) == 2
    assert "v5e:2x2 has 4 chips, and mesh.data * mesh.fsdp * mesh.tensor" in capsys.readouterr().err


@pytest.mark.slow
def test_program_that_does_not_fit_is_told_with_a_remedy(slice_mesh: Mesh) -> None:
    def large(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.sort((a @ b).astype(jnp.float32), axis=0)

    arguments = (abstract(slice_mesh, 2**19, 1024), abstract(slice_mesh, 1024, 2**14, axis=None))
    program = Program("large", jax.jit(large), arguments, (), 0.0, "sft.batch_size")
    found = report_program(program, CHIPS["v5e"], "layer", [0] * 4)
    assert found.verdict.startswith("does not fit: the compiler needs 2") and found.verdict.endswith("has 15.75 GiB")
    assert found.remedy is not None and found.remedy.startswith("lower sft.batch_size")

    small = replace(program, function=jax.jit(jnp.sum), arguments=arguments[:1])
    resident = abstract(slice_mesh, 4, 17 * GIB, dtype=jnp.int8)
    assert report_program(small, CHIPS["v5e"], "layer", [0] * 4).remedy is None
    found = report_program(replace(small, resident=resident), CHIPS["v5e"], "layer", [0] * 4)
    assert (
        found.verdict.startswith("does not fit: 17.") and found.remedy is not None and "raise mesh.fsdp" in found.remedy
    )


@pytest.mark.slow
@pytest.mark.parametrize("fused", [False, True])
def test_attention_kernels_count_by_their_formula(slice_mesh: Mesh, fused: bool) -> None:
    b, n, t, h = 8, 4, 512, 128
    mask = masks.MultiHeadMask([masks.CausalMask((t, t))] * n)
    names = ["q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute"] + ([] if fused else ["q_dq", "kv_dq"])
    sizes = splash.BlockSizes(**{f"block_{name}": 128 for name in names}, use_fused_bwd_kernel=fused)
    kernel = splash.make_splash_mha(mask, head_shards=1, q_seq_shards=1, block_sizes=sizes)
    attend = jax.shard_map(
        jax.vmap(kernel), mesh=slice_mesh, in_specs=(P("fsdp"),) * 3, out_specs=P("fsdp"), check_vma=False
    )

    def loss(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return jnp.sum(attend(q, k, v).astype(jnp.float32))

    arguments = (abstract(slice_mesh, b, n, t, h),) * 3
    program = Program("attention", jax.jit(jax.grad(loss, (0, 1, 2))), arguments, (), 0.0, None)
    found = sum(cost.trips * cost.flops for cost in costs(parse(compile_program(program).text)))
    products = 2 + (5 if fused else 3 + 4)
    assert found == products * 2 * (b // 4) * n * t * t * h / 2


@pytest.mark.slow
def test_loop_over_layers_costs_on_a_tpu_what_the_layers_cost_written_out(
    slice_mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(None, [*SMALL[1:], "model.remat=layer"])
    found: list[tuple[float, float]] = []
    for unrolled in (0, config.model.num_layers):
        monkeypatch.setattr(transformer, "UNROLLED", unrolled)
        program = training_programs(config, slice_mesh)[0]
        step = costs(parse(compile_program(program).text))
        found.append((sum(c.trips * c.flops for c in step), sum(c.trips * c.sent.num_bytes for c in step if c.sent)))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=0.01)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=0.05)
