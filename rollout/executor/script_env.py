"""What every script is given, in whatever sandbox: environment variables, and limits that the kernel holds."""

from collections.abc import Mapping, Sequence

from rollout.executor.interpreter import ENVIRONMENT
from tasks.task import Limits

MIB = 1024 * 1024

# What the script's environment consists of. bwrap itself is started with it too, because it is process 1 inside, and
# /proc/1/environ is what that was started with.
SCRIPT_ENVIRONMENT: Mapping[str, str] = {
    "PATH": f"{ENVIRONMENT}/bin:/usr/bin:/bin",
    "HOME": "/tmp",
    "USER": "agent",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONNOUSERSITE": "1",
}
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def script_environment(num_threads: int = 1, gpus: Sequence[int] = ()) -> Mapping[str, str]:
    """Return the environment variables of a script that has so many cores, and these GPUs."""
    threads = dict.fromkeys(THREADS, str(num_threads))
    return {**SCRIPT_ENVIRONMENT, **threads, "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(len(gpus))))}


def resource_limits(limits: Limits) -> Mapping[str, int]:
    """Return the limits that the kernel holds, by their names in `resource`."""
    return {
        "NPROC": limits.num_processes,
        "FSIZE": limits.file_mb * MIB,
        "CORE": 0,
        "NOFILE": 256,
        # A backstop: numerical libraries reserve far more than they use, and what is used is counted by the watchdog.
        "AS": (limits.memory_mb + 4096) * MIB,
    }
