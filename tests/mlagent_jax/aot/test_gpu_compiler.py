"""Compilation for NVIDIA GPUs on a machine without one; slow tests use the compiler of `make gpu-compiler`."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mlagent_jax import compile as command
from mlagent_jax.aot.chips import GPUS
from mlagent_jax.aot.compiled import compile_program, report_program
from mlagent_jax.aot.cost import costs
from mlagent_jax.aot.gpu_compiler import installed_at
from mlagent_jax.aot.gpu_targets import TARGETS, target_config
from mlagent_jax.aot.hlo import parse
from mlagent_jax.aot.kernels import require_code
from mlagent_jax.aot.programs import Program
from mlagent_jax.aot.topology import find_compiler, topology_mesh
from mlagent_jax.compile import training_programs
from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import ConfigError
from mlagent_jax.configuration.schema import Mesh as MeshSizes
from mlagent_jax.model import transformer
from mlagent_jax.model.attention.triton import triton_attention
from tasks.units import GIB

# JAX 0.11 says so at every lowering
pytestmark = pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")

SMALL = [
    *("model.dtype=bfloat16", "server.kv_cache_mb=1024", "server.max_model_len=256"),
    *("sft.max_length=256", "sft.batch_size=8", "ppo.row_length=256", "ppo.max_response_tokens=64"),
    "ppo.advantage=gae",
]
ON_EIGHT = ["topology=h100:8", "mesh.fsdp=8", "ppo.rows_per_micro_batch=8", *SMALL]
ON_ONE = ["topology=h100:1", "sft.rows_per_micro_batch=1", "ppo.rows_per_micro_batch=1", *SMALL]
ON_TWO_HOSTS = ["topology=h100:2x4", "mesh.data=2", "mesh.fsdp=4", "ppo.rows_per_micro_batch=8", *SMALL]
BACKWARD = ["attention_dkv", "attention_dq", "attention_forward"]


@pytest.fixture
def gpu_compiler(quick_compiler: None) -> Iterator[None]:
    """Give JAX the GPU compiler, with all its optimizations; skip the test without it."""
    try:
        find_compiler("h100:1")
    except ConfigError as error:
        pytest.skip(str(error))
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


def figures(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    """Return the figures that the command prints, by program."""
    assert command.main([*arguments, "--json"]) == 0
    return {program["program"]: program for program in json.loads(capsys.readouterr().out)["programs"]}


@pytest.mark.parametrize("topology", ["h100:", "h100:0", "h100:8x", "h100:2x2x2", "h100:all"])
def test_a_topology_that_is_no_number_of_cards_is_one_line(
    topology: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mlagent_jax.aot.gpu_compiler.find_compiler", lambda: None)
    assert command.main([f"topology={topology}"]) == 2
    assert f"topology={topology} is no number of cards; give h100:8" in capsys.readouterr().err


def test_a_missing_gpu_compiler_is_one_line_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    for name in [name for name in sys.modules if name.startswith("jax_plugins.xla_cuda")]:
        monkeypatch.delitem(sys.modules, name)
    assert command.main(["topology=h100:8"]) == 2
    said = capsys.readouterr().err
    assert "opt/gpu-compiler: no such folder" in said and "make gpu-compiler" in said and said.count("\n") == 1


def test_every_card_is_described_to_the_compiler_with_its_own_memory() -> None:
    assert set(TARGETS) == set(GPUS)
    for generation, card in GPUS.items():
        assert f"device_memory_size: {card.hbm_bytes}" in target_config(generation)
        assert 0.9 * card.hbm_bytes < card.usable_bytes < card.hbm_bytes - GIB


def test_the_plugin_is_of_the_version_of_jax() -> None:
    lists = Path(__file__).parents[3] / "requirements"
    compiler, environment = ((lists / f"{name}.txt").read_text().splitlines() for name in ("gpu_compiler", "cpu"))
    plugins = {line.partition("==")[2] for line in compiler if line.startswith("jax")}
    assert [f"jax=={version}" for version in plugins] == [line for line in environment if line.startswith("jax==")]


CALL = """
ENTRY %main (q: bf16[1,256,4,64]) -> bf16[1,256,4,64] {
  %q = bf16[1,256,4,64]{3,2,1,0} parameter(0)
  ROOT %pallas_call.1 = bf16[1,256,4,64]{3,2,1,0} custom-call(%q, %q), custom_call_target="__gpu$xla.gpu.triton",
    metadata={op_name="attention_dq/pallas_call"}, backend_config={debug = false, ir = "...", name = "attention_dq"}
}
""".replace(",\n    metadata", ", metadata")


def test_a_kernel_without_generated_code_is_an_error() -> None:
    others = [".visible .entry attention_dq_helper(\n", ".visible .entry fusion(\n"]
    assert require_code(parse(CALL), [*others, ".visible .entry attention_dq(\n"]) == ("attention_dq",)
    with pytest.raises(ValueError, match="generated no code for attention_dq"):
        require_code(parse(CALL), others)


def test_a_kernel_of_a_gpu_counts_by_its_layout() -> None:
    (found,) = costs(parse(CALL))
    assert found.flops == 3 * 2 * (1 * 256 * 4 * 64) * 256 / 2


COLLECTIVE = """
HloModule cut, num_partitions=8

%async_computation (p: bf16[64,8]) -> bf16[8,8] {
  %p = bf16[64,8]{1,0} parameter(0)
  ROOT %reduce-scatter.1 = bf16[8,8]{1,0} reduce-scatter(%p), replica_groups=[1,8]<=[8], dimensions={0}, to_apply=%add
}

ENTRY %main (a: bf16[64,8]) -> bf16[8,8] {
  %a = bf16[64,8]{1,0} parameter(0)
  %begun = ((bf16[64,8]{1,0}), bf16[8,8]{1,0}) async-start(%a), calls=%async_computation, backend_config={CONFIG}
  ROOT %done = bf16[8,8]{1,0} async-done(%begun)
}
"""


@pytest.mark.parametrize("waits", ["true", "false"])
def test_a_collective_that_is_only_begun_runs_beside_the_rest(waits: str) -> None:
    text = COLLECTIVE.replace("CONFIG", f'"collective_backend_config":{{"is_sync":{waits}}}')
    (found,) = costs(parse(text))
    assert found.sent is not None and found.hbm_bytes == 0
    assert (found.sent.kind, found.sent.num_bytes) == ("reduce-scatter", 64 * 8 * 2 * 7 / 8)
    assert found.sent.overlaps == (waits == "false")


def test_the_training_environment_does_not_see_the_compiler() -> None:
    program = "from importlib.util import find_spec; print(find_spec('jax_plugins'), find_spec('nvidia'))"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert said.stdout == "None None\n", said


@pytest.mark.slow
def test_every_program_compiles_for_eight_gpus(gpu_compiler: None, capsys: pytest.CaptureFixture[str]) -> None:
    found = figures(ON_EIGHT, capsys)
    of_ppo = [f"{network} {part}" for network in ("policy", "critic") for part in ("score", "gradients", "apply")]
    assert list(found) == ["sft step", "sft evaluation", *of_ppo]
    for name, program in found.items():
        memory, bounds = program["memory"], program["roofline"]
        assert program["verdict"].startswith("fits:") and program["remedy"] is None
        assert memory["peak"] == sum(
            memory[key] for key in ("arguments", "temporaries", "outputs", "resident", "server")
        )
        assert 2 * GIB < memory["server"] < memory["peak"] < 3 * GIB  # the cache, vLLM's own, and the weights
        assert bounds["collective_bytes"] and 0 <= bounds["overlapped_utilization"] < 1
        trains = "step" in name or "gradients" in name
        assert program["kernels"] == (BACKWARD if trains else [] if "apply" in name else ["attention_forward"])
    assert {"all-gather", "reduce-scatter"} <= set(found["sft step"]["roofline"]["collective_bytes"])
    assert found["sft step"]["roofline"]["overlapping_bytes"] > 0.3 * sent(found["sft step"])
    evaluation, step = (found[name]["memory"]["temporaries"] for name in ("sft evaluation", "sft step"))
    assert evaluation < step


@pytest.mark.slow
@pytest.mark.parametrize("settings", [[], ["adapter.rank=8", "sft.optimizer=adamw"]], ids=["full", "adapters"])
def test_every_program_compiles_for_one_gpu_and_sends_nothing(
    gpu_compiler: None, capsys: pytest.CaptureFixture[str], settings: list[str]
) -> None:
    found = figures([*ON_ONE, *settings], capsys)
    assert len(found) == 8
    for name, program in found.items():
        assert sent(program) == 0, name
        assert ("apply" in name) == (program["kernels"] == []), name


@pytest.mark.slow
def test_sums_of_gradients_over_hosts_go_through_the_network(gpu_compiler: None) -> None:
    """With a replica on each host, the sum of each shard's gradients joins two cards, one on each host."""
    topology, *overrides = ON_TWO_HOSTS
    config = load_config(None, overrides)
    mesh = topology_mesh(config.mesh, topology.partition("=")[2])
    hosts = [device.process_index for device in mesh.devices.flat]
    assert hosts == [0, 0, 0, 0, 1, 1, 1, 1]
    card = GPUS["h100"]
    bounds = report_program(training_programs(config, mesh)[0], card, "layer", hosts).roofline
    assert bounds is not None
    within_hosts = sum(bounds.collective_bytes.values()) / card.link_bandwidth
    assert bounds.collective_seconds > 1.2 * within_hosts


def sent(program: dict[str, Any]) -> float:
    return sum(program["roofline"]["collective_bytes"].values())


@pytest.mark.slow
def test_a_program_that_does_not_fit_is_told_with_a_remedy(gpu_compiler: None) -> None:
    mesh = topology_mesh(MeshSizes(), "h100:1")
    sharding = NamedSharding(mesh, P())
    argument = jax.ShapeDtypeStruct((30, GIB), jnp.int8, sharding=sharding)
    program = Program("large", jax.jit(lambda x: jnp.flip(x)), (argument,), (), 0.0, "sft.max_length")

    def report(server: int = 0, resident: Any = ()) -> tuple[str, str | None]:
        found = report_program(replace(program, resident=resident), GPUS["h100"], "layer", [0], server)
        return found.verdict, found.remedy

    assert report() == ("fits: 60.0 of 77 GiB", None)
    verdict, remedy = report(server=20 * GIB)
    assert verdict == "does not fit: 80.0 of 77 GiB" and remedy and "20.0 GiB are the policy server's" in remedy
    verdict, remedy = report(resident=jax.ShapeDtypeStruct((30, GIB), jnp.int8, sharding=sharding))
    assert verdict == "does not fit: 90.0 of 77 GiB" and remedy and "raise mesh.fsdp" in remedy


@pytest.mark.slow
@pytest.mark.parametrize("generation", GPUS)
@pytest.mark.parametrize("model", [(14, 2, 64), (28, 4, 128)], ids=["0.5B", "7B"])
def test_attention_kernels_use_tensor_cores_and_hardly_spill_on_hopper(
    gpu_compiler: None, generation: str, model: tuple[int, int, int], tmp_path: Path
) -> None:
    heads, kv_heads, head_dim = model
    mesh = topology_mesh(MeshSizes(), f"{generation}:1")

    def array(*shape: int, dtype: Any = jnp.bfloat16) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, P()))

    def loss(q: jax.Array, k: jax.Array, v: jax.Array, ends: jax.Array) -> jax.Array:
        return triton_attention(q, k, v, ends).astype(jnp.float32).sum()

    q, k = (array(1, 4096, n, head_dim) for n in (heads, kv_heads))
    arguments = (q, k, k, array(1, 4096, dtype=jnp.int32))
    program = Program("attention", jax.jit(jax.grad(loss, (0, 1, 2))), arguments, (), 0.0, None)
    _, text, code = compile_program(program)
    assert list(require_code(parse(text), code)) == BACKWARD
    products = {"a100": r"mma\.sync", "b200": r"tcgen05\.mma"}.get(generation, r"wgmma\.mma_async")
    for name in BACKWARD:
        (kernel,) = (part for part in code if f".entry {name}(" in part)
        assert re.search(products, kernel), f"{name} does not use tensor cores"
        if generation in ("h100", "h200"):  # the tiles are chosen for Hopper
            assert spilled_bytes(kernel, tmp_path) <= 128, name


def spilled_bytes(code: str, folder: Path) -> int:
    """Return the bytes that the assembler stores because registers do not suffice."""
    source, target = folder / "kernel.ptx", re.findall(r"\.target (\w+)", code)[-1]
    source.write_text(code)
    assembler = installed_at() / "nvidia/cu13/bin/ptxas"
    command = [assembler, "-v", f"-arch={target}", source, "-o", folder / "kernel.cubin"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return sum(int(count) for count in re.findall(r"(\d+) bytes spill", said))


@pytest.mark.slow
def test_flops_on_gpus_are_those_of_the_model_and_of_recomputation(
    gpu_compiler: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = ["model.num_layers=4", "model.hidden_size=512", "model.num_heads=8", "model.num_kv_heads=2"]
    rows = ["model.intermediate_size=2048", "sft.max_length=1024", "tokenizer.vocab_size=2048", "model.remat=layer"]
    config = load_config(None, [*ON_EIGHT[1:], *sizes, *rows])
    mesh = topology_mesh(config.mesh, ON_EIGHT[0].partition("=")[2])
    found: list[float] = []
    for unrolled in (0, config.model.num_layers):
        monkeypatch.setattr(transformer, "UNROLLED", unrolled)
        program = training_programs(config, mesh)[0]
        step = costs(parse(compile_program(program).text))
        found.append(sum(cost.trips * cost.flops for cost in step))
    np.testing.assert_allclose(found[0], found[1], rtol=0.02)
    # A layer runs forward twice, so with two FLOPs more for each six; attention also recomputes its scores.
    assert 1.2 < found[0] * mesh.size / program.model_flops < 1.6
