"""Start one or two real processes of a run, and read what they wrote."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from mlagent_jax.configuration.loading import to_dict
from mlagent_jax.run.run_dir import RunDir
from mlagent_jax.run.stage_records import StageRecords
from mlagent_jax.stages import load_stages
from mlagent_jax.train import parse_arguments
from rollout.storage.trajectories import write_trajectories

from ..conftest import one_action_trajectories

SETTINGS = [
    "model.num_layers=1",
    "model.hidden_size=64",
    "model.num_heads=2",
    "model.num_kv_heads=2",
    "model.intermediate_size=128",
    "model.rope_theta=10000.0",
    "model.induction_init=false",
    "mesh.data=2",
    "mesh.fsdp=2",
    "select.max_similarity=null",
    "sft.wordings=1",
    "sft.max_length=400",
    "sft.batch_size=4",
    "sft.optimizer=adamw",
    "sft.num_epochs=12.0",
    "sft.max_steps=30",
    "sft.eval_every=8",
    "sft.patience=9",
    "ppo.rows_per_micro_batch=4",
]
SMALL_UPDATES = [  # two, on four actions each
    "ppo.num_updates=2",
    "ppo.trajectories_per_update=2",
    "ppo.states_per_trajectory=1",
    "ppo.samples_per_state=2",
    "ppo.max_response_tokens=24",
    "ppo.row_length=1024",
    "ppo.num_minibatches=1",
]
STEPS = 30


@dataclass(frozen=True)
class Launched:
    """The processes of one run, by their numbers."""

    processes: Sequence[subprocess.Popen[str]]

    def wait(self, seconds: float = 600.0) -> tuple[list[int], list[str]]:
        """Returns exit codes and what each said on stderr; none is left when this returns or raises."""
        with self:
            said = [process.communicate(timeout=seconds)[1] for process in self.processes]
            return [process.returncode for process in self.processes], said

    def __enter__(self) -> "Launched":
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


def launch(programs: Path, count: int, *settings: str, by_process: Sequence[Sequence[str]] = ((), ())) -> Launched:
    """Starts the real command as `count` processes with four devices together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for number in range(count):
        environment = {
            **os.environ,
            "JAX_NUM_CPU_DEVICES": str(4 // count),
            "JAX_COMPILATION_CACHE_DIR": str(programs / str(count)),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        }
        if count > 1:
            environment |= {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}"}
            environment |= {"JAX_NUM_PROCESSES": str(count), "JAX_PROCESS_ID": str(number)}
        command = [sys.executable, "-m", "mlagent_jax.train", *SETTINGS, *settings, *by_process[number]]
        started.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    return Launched(started)


def collected(folder: Path) -> Path:
    """Returns a run directory in which collecting is done: twelve trajectories of one action."""
    config, _ = parse_arguments([*SETTINGS, f"run_dir={folder}"])
    records = StageRecords(RunDir(folder), load_stages(), to_dict(config))
    folder.mkdir()
    records.begin("collect")
    (folder / "trajectories").mkdir()
    write_trajectories(folder / "trajectories" / "00000.parquet", one_action_trajectories(12))
    (folder / "ideas.json").write_text("{}")
    records.finish("collect", {}, 0.0)
    return folder


def metrics(folder: Path) -> list[dict[str, float]]:
    path = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{key: value for key, value in line.items() if not key.startswith("time/")} for line in lines]


def weights(folder: Path, stage: str = "sft") -> dict[str, np.ndarray]:
    return load_file(folder / stage / "model" / "model.safetensors")


def wait_for_steps(launched: Launched, folder: Path, count: int) -> None:
    wait_until(launched, lambda: len(metrics(folder)) >= count)


def wait_until(launched: Launched, is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 600
    while not is_so():
        assert time.monotonic() < deadline and all(process.poll() is None for process in launched.processes)
        time.sleep(0.02)
