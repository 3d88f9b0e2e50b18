"""Which GPUs trainer and server get, and what JAX and the server are told of it."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import ConfigError, Server, Trainer
from mlagent_jax.gpus.assignment import Assignment, assign
from mlagent_jax.gpus.visible import Gpu, parse, select_visible
from tasks.units import GIB, MIB

TABLE = """\
0, GPU-aa11, 81559, 4, NVIDIA H100 80GB HBM3
1, GPU-aa22, 81559, 30000, NVIDIA H100 80GB HBM3
2, GPU-bb33, [N/A], [N/A], Some, integrated one
3, GPU-cc44, 24564, [N/A], NVIDIA RTX
"""


def gpus(count: int) -> list[Gpu]:
    return [Gpu(n, f"GPU-{n}", 80 * GIB, 0, "Card") for n in range(count)]


def numbers(found: Sequence[Gpu]) -> list[int]:
    return [gpu.index for gpu in found]


@pytest.mark.parametrize(
    ("count", "devices", "trainer", "server", "scripts", "expected"),
    [
        (1, 1, Trainer(), Server(), (), ([0], [0], 0.65, 0.3)),
        (1, 1, Trainer(), Server(memory_fraction=0.5), (), ([0], [0], 0.45, 0.5)),
        (1, 1, Trainer(memory_fraction=0.4), Server(), (), ([0], [0], 0.4, 0.3)),
        (2, 1, Trainer(), Server(), (), ([0], [1], 0.9, 0.9)),
        (2, 1, Trainer(), Server(gpus=(0,)), (), ([1], [0], 0.9, 0.9)),
        (2, 1, Trainer(gpus=("GPU-1",)), Server(), (), ([1], [0], 0.9, 0.9)),
        (2, 2, Trainer(), Server(), (), ([0, 1], [0], 0.65, 0.3)),
        (3, 1, Trainer(), Server(), (0,), ([1], [2], 0.9, 0.9)),
        (8, 4, Trainer(), Server(tensor_parallel=2, data_parallel=2), (), ([0, 1, 2, 3], [4, 5, 6, 7], 0.9, 0.9)),
        (8, 4, Trainer(), Server(gpus=(0, 1, 2, 3), data_parallel=4), (), ([4, 5, 6, 7], [0, 1, 2, 3], 0.9, 0.9)),
        (4, 4, Trainer(), Server(data_parallel=4), (), ([0, 1, 2, 3], [0, 1, 2, 3], 0.65, 0.3)),
        (8, None, Trainer(), Server(), (), (list(range(8)), [0], 0.65, 0.3)),
    ],
)
def test_layouts(count, devices, trainer, server, scripts, expected) -> None:
    found = assign(gpus(count), trainer, server, devices, for_scripts=scripts)
    assert (numbers(found.trainer), numbers(found.server)) == expected[:2]
    assert (found.trainer_fraction, found.server_fraction) == expected[2:]


def test_nccl_is_refused_on_a_gpu_that_trainer_and_server_share() -> None:
    nccl = Server(weight_transfer="nccl")
    with pytest.raises(ConfigError, match="set server.weight_transfer=files, or name other GPUs in server.gpus"):
        assign(gpus(1), Trainer(), nccl, 1)
    assert numbers(assign(gpus(2), Trainer(), nccl, 1).server) == [1]


def test_a_trainer_without_gpus_and_a_server_elsewhere_take_none() -> None:
    beside = assign(gpus(2), Trainer(), Server(), 1, trains=False)
    assert (numbers(beside.trainer), numbers(beside.server), beside.server_fraction) == ([], [0], 0.9)
    elsewhere = assign(gpus(2), Trainer(), Server(), 1, serves=False)
    assert (numbers(elsewhere.trainer), elsewhere.server, elsewhere.trainer_fraction) == ([0], (), 0.9)


@pytest.mark.parametrize(
    ("count", "devices", "trainer", "server", "remedy"),
    [
        (2, 4, Trainer(), Server(), "mesh has 4 devices, and 2 GPUs are visible; lower mesh.fsdp"),
        (2, 1, Trainer(gpus=(5,)), Server(), "trainer.gpus: there is no GPU 5; visible are 0, 1; `nvidia-smi -L`"),
        (2, 1, Trainer(gpus=(0, 1)), Server(), "trainer.gpus=.0, 1. has 2 GPUs, and the mesh 1 devices"),
        (3, 2, Trainer(), Server(data_parallel=2), "data_parallel = 2, and 1 GPUs are left; lower one of the two"),
        (1, 1, Trainer(), Server(tensor_parallel=2), "data_parallel = 2, and 1 GPUs are visible"),
    ],
)
def test_too_few_gpus_are_said_with_the_key(count, devices, trainer, server, remedy) -> None:
    with pytest.raises(ConfigError, match=remedy):
        assign(gpus(count), trainer, server, devices)


@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ("server.gpus=[0, 1]", "has 2 GPUs, expected server.tensor_parallel . server.data_parallel = 1"),
        ("trainer.gpus=[1, 1]", "names a GPU twice"),
        ("server.memory_fraction=0.0", "server.memory_fraction: got 0.0, expected greater than 0"),
        ("trainer.gpus=[cuda]", "trainer.gpus"),
    ],
)
def test_keys_that_cannot_be_are_refused(setting: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=remedy):
        load_config(None, [setting])
    assert load_config(None, ["server.gpus=[GPU-8f2c]", "trainer.gpus=[0]"]).server.gpus == ("GPU-8f2c",)


def test_the_drivers_table_is_read_and_cut_to_what_is_visible() -> None:
    found = parse(TABLE)
    assert numbers(found) == [0, 1, 3] and found[1].used == 30000 * MIB and found[2].used == 0
    assert found[0].name == "NVIDIA H100 80GB HBM3"
    for variable, expected in ((None, [0, 1, 3]), ("", []), ("3,0", [3, 0]), ("GPU-aa22", [1]), ("1,-1,0", [1])):
        assert numbers(select_visible(found, variable)) == expected
    assert select_visible(found, "MIG-1234") == () and select_visible(found, "GPU-aa") == ()


# What `mlagent train` does before it imports JAX, with a driver and a plugin of JAX that only look like the real ones.
PREPARE = """
import json, os, sys
from mlagent_jax.configuration.loading import load_config
from mlagent_jax.gpus import environment
environment.is_cpu_build = lambda: False
environment.entry_points = lambda group: [type("Plugin", (), {"name": "xla_cuda13"})]
config = load_config(None, sys.argv[1:])
found = environment.prepare(config.trainer, config.server, config.mesh, config.executor)
names = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")
assert "jax" not in sys.modules
told = {name: os.environ.get(name) for name in names}
print(json.dumps([told, [gpu.index for gpu in found.server], found.is_shared]))
"""


def prepare(folder: Path, *settings: str, **variables: str) -> tuple[dict[str, str], list[int], bool]:
    driver = folder / "nvidia-smi"
    driver.write_text(f"#!/bin/sh\ncat <<'END'\n{TABLE}END\n")
    driver.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "CUDA_", "XLA_"))}
    environment = {**kept, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": os.getcwd(), **variables}
    done = subprocess.run([sys.executable, "-c", PREPARE, *settings], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_jax_is_told_before_it_starts_and_the_server_gets_the_other_card(tmp_path: Path) -> None:
    told, server, is_shared = prepare(tmp_path)
    assert told == {
        "CUDA_VISIBLE_DEVICES": "0",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "XLA_CLIENT_MEM_FRACTION": "0.9",
        "XLA_PYTHON_CLIENT_MEM_FRACTION": None,
    }
    assert (server, is_shared) == ([1], False)


def test_the_users_environment_limits_and_shares_are_kept(tmp_path: Path) -> None:
    told, server, is_shared = prepare(tmp_path, CUDA_VISIBLE_DEVICES="1", XLA_PYTHON_CLIENT_MEM_FRACTION="0.5")
    assert (told["CUDA_VISIBLE_DEVICES"], told["XLA_CLIENT_MEM_FRACTION"]) == ("1", "0.5")
    assert told["XLA_PYTHON_CLIENT_MEM_FRACTION"] is None and (server, is_shared) == ([1], True)


def test_a_trainer_on_the_cpu_leaves_the_gpus_to_the_server(tmp_path: Path) -> None:
    told, server, is_shared = prepare(tmp_path, JAX_PLATFORMS="cpu")
    assert told["CUDA_VISIBLE_DEVICES"] is None and (server, is_shared) == ([0], False)


def test_a_machine_without_a_driver_has_no_gpus_and_needs_no_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlagent_jax.gpus import environment

    monkeypatch.setenv("PATH", "/nowhere")
    config = load_config()
    before = dict(os.environ)
    found = environment.prepare(config.trainer, config.server, config.mesh, config.executor)
    assert found == Assignment() and dict(os.environ) == before
    with pytest.raises(ConfigError, match="server.gpus=.1.: nvidia-smi shows no GPU here; set server.gpus=null"):
        environment.prepare(config.trainer, Server(gpus=(1,)), config.mesh, config.executor)
