"""The environment says whether a process is one of several; a single process imports no JAX for it."""

import subprocess
import sys

import pytest

from mlagent_jax.configuration.schema import ConfigError
from mlagent_jax.multihost.launch import launched

NAMES = (
    "JAX_COORDINATOR_ADDRESS JAX_NUM_PROCESSES JAX_PROCESS_ID SLURM_STEP_NODELIST SLURM_NTASKS OMPI_COMM_WORLD_SIZE"
).split()


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


EXPLICIT = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
GIVEN = {"coordinator_address": "a:1", "num_processes": 2, "process_id": 1, "cluster_detection_method": "deactivate"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (EXPLICIT, GIVEN),
        ({**EXPLICIT, "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}, None),
        ({"SLURM_STEP_NODELIST": "n[1-2]", "SLURM_NTASKS": "16"}, {"cluster_detection_method": "slurm"}),
        ({"SLURM_STEP_NODELIST": "n1", "SLURM_NTASKS": "1"}, None),
        ({"SLURM_NTASKS": "16"}, None),  # the batch script itself, not a step
        ({"OMPI_COMM_WORLD_SIZE": "4"}, {"cluster_detection_method": "ompi"}),
    ],
)
def test_environment_says_how_a_process_was_started(
    environment: dict[str, str], expected: dict | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launched() == expected


@pytest.mark.parametrize(
    "wrong", [{"JAX_PROCESS_ID": "2"}, {"JAX_NUM_PROCESSES": "two"}, {"JAX_COORDINATOR_ADDRESS": None}]
)
def test_incomplete_description_is_refused(wrong: dict[str, str | None], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**EXPLICIT, **wrong}.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="expected HOST:PORT, a number of processes and this one's number"):
        launched()


def test_a_single_process_leads_without_waiting_and_imports_no_jax() -> None:
    program = """
import sys
from mlagent_jax.multihost import distributed
distributed.initialize()
value = object()
assert distributed.from_main(lambda: value) is value
assert distributed.is_main() and distributed.is_alone() and distributed.process_index() == 0
assert distributed.any_process(True) and not distributed.any_process(False)
distributed.leave(3, "nobody is told")
assert "jax" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
