"""The prepared check of a GPU, rehearsed on a CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.vllm
def test_every_step_runs_and_its_figures_are_one_line_of_json(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHON": sys.executable, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = [ROOT / "benchmarks/device.sh", "--tiny", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    found = json.loads(done.stdout.splitlines()[-1])
    statuses = {name: step["status"] for name, step in found.items()}
    assert statuses == {"doctor": 0, "ppo": 0, "sft": 0}, found
    assert all(check["passed"] for check in found["doctor"]["result"])
    assert found["sft"]["result"]["shapes"].keys() == {"tiny"}
    assert found["ppo"]["result"]["states"]["seconds"] > 0
