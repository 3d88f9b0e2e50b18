"""Training on a CPU keeps freed memory in the process; the host of an accelerator is not configured."""

import os
import subprocess
import sys

import pytest

from mlagent_jax.platform import cpu

# Takes and frees 256 MiB from several threads, as XLA does, and prints the page faults of each time after the first.
PROGRAM = """
import resource, threading
from mlagent_jax.platform import cpu
if {kept}:
    assert cpu.prepare()
import jax, numpy as np
assert jax.config.read('jax_cpu_enable_async_dispatch') != {kept}

def take():
    np.ones(1 << 25)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(min(faults() for _ in range(3)))
"""


def faults(kept: bool) -> int:
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "NUMPY_MADVISE_HUGEPAGE": "0"}
    program = PROGRAM.format(kept=kept)
    return int(subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True).stdout)


def test_freed_memory_is_used_again_without_a_page_fault() -> None:
    pages = (1 << 28) / os.sysconf("SC_PAGE_SIZE")
    assert faults(kept=True) < 0.01 * pages
    assert faults(kept=False) > 0.9 * pages  # what it costs otherwise


@pytest.mark.parametrize(("platforms", "plugins", "expected"), [
    ("cpu", True, False),
    ("cuda,cpu", False, True),
    ("", False, False),
    ("", True, True),
])  # fmt: skip
def test_only_a_machine_without_accelerator_is_set_up(
    platforms: str, plugins: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(cpu, "entry_points", lambda group: ["a plugin"] if plugins else [])
    monkeypatch.setattr(cpu, "find_spec", lambda name: None)
    assert cpu.expects_accelerator() is expected
