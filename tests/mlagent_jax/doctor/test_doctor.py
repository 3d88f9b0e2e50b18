"""Doctor finds what works on this machine, and says what to do about what does not."""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import Config, ConfigError
from mlagent_jax.doctor import devices, machine, process
from mlagent_jax.doctor.__main__ import main
from mlagent_jax.doctor.finding import Finding, examine
from mlagent_jax.doctor.tiny import tiny_model
from mlagent_jax.model.sharding import make_mesh
from rollout.errors import ServerError


def config(*settings: str) -> Config:
    return load_config(None, settings)


def check_all(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Finding]]:
    """Return the exit code of the real command and its findings."""
    code = main([*arguments, "--json"])
    found = [Finding(**json.loads(line)) for line in capfd.readouterr().out.splitlines()]
    return code, {finding.name: finding for finding in found}


@pytest.mark.slow
@pytest.mark.vllm
def test_every_check_passes_on_a_cpu(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "4")
    settings = ("mesh.fsdp=2", "mesh.tensor=2", "model.dtype=bfloat16", "server.dtype=bfloat16")
    code, found = check_all(capfd, *settings)
    assert code == 0, found
    assert list(found) == ["versions", "gpus", "sandbox", *process.NAMES]
    assert found["all-reduce"].text.startswith("a sum over 4 devices in")
    assert "fsdp=2 * tensor=2" in found["devices"].text
    assert "took other weights" in found["server"].text


@pytest.mark.gpu
def test_every_check_passes_on_a_gpu(capfd: pytest.CaptureFixture[str]) -> None:
    code, found = check_all(capfd, "model.dtype=bfloat16", "server.dtype=bfloat16")
    assert code == 0, found
    assert found["devices"].text.startswith("gpu: ")


def test_wrong_settings_are_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["mesh.fdsp=2"]) == 2
    assert "did you mean mesh.fsdp" in capfd.readouterr().err


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put an nvidia-smi into the path that shows one H100, or nothing."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("JAX_PLATFORMS", "")

    def install(version: str) -> None:
        card = "0, GPU-aa11, 81559, 4, NVIDIA H100 80GB HBM3"
        answer = f'case "$1" in *driver*) echo {version};; *) echo "{card}";; esac' if version else "exit 9"
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{answer}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)

    return install


def test_gpus_that_jax_or_vllm_cannot_use_are_a_fault(
    driver: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = {"jax-cuda13-plugin": "0.11.2"}
    monkeypatch.setattr(machine, "version", versions.get)
    monkeypatch.setattr(machine, "_is_installed", versions.__contains__)
    monkeypatch.setattr(machine.environment, "jax_uses_gpus", lambda: True)
    monkeypatch.setattr(machine, "is_cpu_build", lambda: False)
    driver("580.65.06")
    assert machine.find_gpus(config()) == "0: NVIDIA H100 80GB HBM3; driver 580.65.06, jax-cuda13-plugin 0.11.2"
    driver("570.12")
    with pytest.raises(ConfigError, match="driver 570.12 is too old for jax-cuda13-plugin; install 580 or newer"):
        machine.find_gpus(config())
    driver("580.65.06")
    monkeypatch.setattr(machine, "is_cpu_build", lambda: True)
    with pytest.raises(ConfigError, match="vLLM here is the build for CPUs; install the extra cuda"):
        machine.find_gpus(config())
    machine.find_gpus(config("server.address=http://10.0.0.2:8000"))
    monkeypatch.setattr(machine.environment, "jax_uses_gpus", lambda: False)
    with pytest.raises(ConfigError, match="JAX_PLATFORMS keeps JAX from them; unset it"):
        machine.find_gpus(config())
    versions.clear()
    with pytest.raises(ConfigError, match="JAX here is the build for CPUs; install the extra cuda"):
        machine.find_gpus(config())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1")
    assert "names no whole GPU" in machine.find_gpus(config())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    driver("")
    with pytest.raises(ConfigError, match="nvidia-smi is installed and shows no GPU"):
        machine.find_gpus(config())


def test_a_sandbox_without_its_packages_is_a_fault(tmp_path: Path) -> None:
    settings = (f"executor.python={tmp_path / 'python'}",)
    found = examine("sandbox", partial(machine.run_in_sandbox, config(*settings)))
    assert not found.passed and str(tmp_path) in found.text


def test_a_wrong_kernel_and_a_wrong_sum_are_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = make_mesh(1, 2, 2, 1)
    right = devices.attention
    assert devices.all_reduce(mesh).startswith("a sum over 4 devices in ")
    for wrong in (lambda out: out.at[0, 5].add(0.1), lambda out: out * jnp.nan, jax.lax.stop_gradient):
        monkeypatch.setattr(devices, "attention", lambda q, k, v, layout, wrong=wrong: wrong(right(q, k, v, layout)))
        with pytest.raises(
            FloatingPointError, match="of attention over packed rows with heads of 64 in float32 is off"
        ):
            devices.compare_attention()
    psum = jax.lax.psum
    monkeypatch.setattr(jax.lax, "psum", lambda x, axes: psum(x, axes) / 2)
    with pytest.raises(FloatingPointError, match="the sum of 0 to 3 over all devices is 3"):
        devices.all_reduce(mesh)


@pytest.mark.parametrize("rate", [0.0, -3e-3, float("nan")])
def test_a_loss_that_does_not_fall_is_a_fault(rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    make = devices.make_optimizer
    monkeypatch.setattr(devices, "make_optimizer", lambda kind, learning_rate, clip: make(kind, rate, clip))
    with pytest.raises(FloatingPointError, match="the loss of 8 steps on one batch went"):
        devices.fine_tune(config(), make_mesh(1, 1, 1, 1))


FAKE = """
import json, os, sys, time
for name in sys.argv[1].split(","):
    if name == {failing!r}:
        print("the last words", file=sys.stderr, flush=True)
        {how}
    print(json.dumps({{"name": name, "passed": name != {refused!r}, "text": "found", "seconds": 1.0}}), flush=True)
"""


def checked(
    monkeypatch: pytest.MonkeyPatch, failing: str = "", how: str = "pass", refused: str = "", seconds: float = 30.0
) -> dict[str, Finding]:
    """Return the findings of real processes, one of whose checks goes wrong."""
    program = FAKE.format(failing=failing, how=how, refused=refused)
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", program))
    return {found.name: found for found in process.findings_of_devices([], seconds=seconds)}


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("os.kill(os.getpid(), 11)", "the process ended with signal 11; it said last: …the last words"),
        ("os._exit(3)", "the process ended with status 3; it said last: …the last words"),
        ("time.sleep(60)", "no result after 5 s; it said last: …the last words"),
    ],
)
def test_a_check_that_crashes_or_hangs_fails_and_the_others_still_run(
    monkeypatch: pytest.MonkeyPatch, how: str, text: str
) -> None:
    found = checked(monkeypatch, "attention", how, seconds=5.0)
    assert list(found) == list(process.NAMES)
    assert found["attention"].text == text
    assert [name for name, finding in found.items() if not finding.passed] == ["attention"]


def test_nothing_is_tried_without_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    for findings in (
        checked(monkeypatch, refused="devices"),
        checked(monkeypatch, "devices", "os.kill(os.getpid(), 6)"),
    ):
        assert not findings["devices"].passed
        assert {findings[name].text for name in process.NAMES[1:]} == {"not tried, because devices failed"}


def test_one_of_several_processes_does_not_start_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "launched", lambda: {"num_processes": 2})
    assert all(finding.passed for finding in checked(monkeypatch).values())
    found = checked(monkeypatch, "attention", "os._exit(3)")
    assert found["all-reduce"].passed and found["attention"].text.startswith("the process ended with status 3")
    assert {found[name].text for name in ("fine-tuning", "server")} == {"not tried, because the check before failed"}


@pytest.mark.parametrize(("shape", "parts"), [((1, 2, 2, 2), 1), ((1, 6, 1, 1), 4), ((1, 3, 2, 1), 3)])
def test_tiny_network_fits_any_mesh_and_server(shape: tuple[int, int, int, int], parts: int) -> None:
    config = tiny_model(make_mesh(*shape), "float32", parts=parts).config
    _, fsdp, tensor, _ = shape
    assert config.hidden_size % fsdp == config.vocab_size % (fsdp * tensor) == 0
    assert config.num_kv_heads % tensor == config.num_kv_heads % parts == config.num_heads % config.num_kv_heads == 0


def test_errors_of_libraries_keep_their_type() -> None:
    def fail(error: Exception) -> str:
        raise error

    assert examine("server", partial(fail, ServerError("no answer"))).text == "no answer"
    assert examine("server", partial(fail, RuntimeError("a\nb"))).text == "RuntimeError: a b"
    assert str(Finding("gpus", False, "no")) == "FAIL  gpus         no"
