"""The checks that do not need JAX: versions, GPUs and their driver, and the sandbox."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mlagent_jax.configuration.schema import Config, ConfigError
from mlagent_jax.gpus import environment
from mlagent_jax.gpus.visible import visible_gpus
from mlagent_jax.platform import tpu
from mlagent_jax.reporting.summary import versions
from rollout.executor.__main__ import run_script
from rollout.inference.vllm_package import BEFORE, FIRST, installed_version, is_cpu_build, is_supported
from rollout.types import Exit
from tasks.task import Limits

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint")
# The oldest drivers of a CUDA release, by the plugin of JAX that is built for it; from NVIDIA's release notes.
OLDEST_DRIVER: Mapping[str, int] = {"jax-cuda12-plugin": 525, "jax-cuda13-plugin": 580}
SCRIPT = "import numpy, pandas, sklearn\nprint(numpy.ones(3).sum())\n"


def find_versions(config: Config) -> str:
    """Return the versions of Python and the libraries, vLLM's among them if the run starts a server."""
    found = [f"{name} {number}" for name, number in versions(PACKAGES).items()]
    served = installed_version()
    if config.server.address is None:
        if served is None:
            raise ConfigError(
                "vLLM is not installed, so no policy server can start here; install the extra cpu or cuda, or set "
                "server.address"
            )
        if not is_supported(served):
            raise ConfigError(f"vLLM {served} is installed, expected {FIRST} or later, before {BEFORE}; install that")
        found.append(f"vllm {served}{' for CPUs' if is_cpu_build() else ''}")
    return ", ".join(found)


def find_gpus(config: Config) -> str:
    """Return the GPUs and the version of their driver, which JAX and the server must be able to use."""
    gpus = visible_gpus()
    if not gpus:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible is not None:
            return f"CUDA_VISIBLE_DEVICES={visible} names no whole GPU, so JAX and vLLM take what they find there"
        if shutil.which("nvidia-smi") is not None:
            raise ConfigError("nvidia-smi is installed and shows no GPU; run it by hand and check the driver")
        return "no NVIDIA GPU" if not tpu.has_chips() else "TPU chips"
    names = ", ".join(f"{gpu.index}: {gpu.name}" for gpu in gpus)
    plugin = next((name for name in OLDEST_DRIVER if _is_installed(name)), None)
    if plugin is None:
        raise ConfigError(f"there are GPUs ({names}), but JAX here is the build for CPUs; install the extra cuda")
    if not environment.jax_uses_gpus():
        raise ConfigError(f"there are GPUs ({names}), but JAX_PLATFORMS keeps JAX from them; unset it")
    if config.server.address is None and is_cpu_build():
        raise ConfigError(f"there are GPUs ({names}), but vLLM here is the build for CPUs; install the extra cuda")
    driver = _driver_version()
    if driver.partition(".")[0].isdigit() and int(driver.partition(".")[0]) < OLDEST_DRIVER[plugin]:
        raise ConfigError(f"the driver {driver} is too old for {plugin}; install {OLDEST_DRIVER[plugin]} or newer")
    return f"{names}; driver {driver}, {plugin} {version(plugin)}"


def run_in_sandbox(config: Config) -> str:
    """Run one script in the sandbox that scripts of the agent get."""
    limits = Limits(seconds=60.0)
    with tempfile.TemporaryDirectory(prefix="mlagent_doctor_") as folder:
        script = Path(folder) / "train.py"
        script.write_text(SCRIPT)
        done = run_script(script, None, limits, replace(config.executor, slots=1), fresh=False)
    if done.exit is not Exit.OK:
        raise ConfigError(
            f"a script that imports numpy, pandas and sklearn ended {done.exit}: {done.output.strip()[-300:]}; "
            "`mlagent executor doctor` says what is missing"
        )
    return f"{config.executor.isolation}, {done.tier}; a script ran in {done.seconds:.2f} s"


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _driver_version() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return next(iter(done.stdout.split()), "unknown")
