"""Environment variables and kernel limits of every script, the same in all sandboxes."""

from collections.abc import Mapping, Sequence

from rollout.executor.interpreter import PREFIX
from tasks.task import Limits
from tasks.units import MIB

# bwrap is started with these variables too: it is process 1 inside, and /proc/1/environ shows its initial environment.
BASE_ENV: Mapping[str, str] = {
    "PATH": f"{PREFIX}/bin:/usr/bin:/bin",
    "HOME": "/tmp",
    "USER": "agent",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONNOUSERSITE": "1",
}
OPEN_FILES = 256  # files that one process may have open at the same time
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def script_env(num_threads: int = 1, gpus: Sequence[int] = ()) -> Mapping[str, str]:
    """Return the environment variables of a script.

    Args:
        num_threads: The number of cores that it may use.
        gpus: The GPUs that it may use, which are numbered from zero inside.
    """
    threads = dict.fromkeys(THREADS, str(num_threads))
    return {**BASE_ENV, **threads, "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(len(gpus))))}


def resource_limits(limits: Limits) -> Mapping[str, int]:
    """Return the limits that the kernel enforces, by their names in `resource`."""
    return {
        "NPROC": limits.num_processes,
        "FSIZE": limits.file_mb * MIB,
        "CORE": 0,
        "NOFILE": OPEN_FILES,
        # A backstop: numerical libraries reserve far more than they use, and the watchdog counts the memory in use.
        "AS": (limits.memory_mb + 4096) * MIB,
    }
