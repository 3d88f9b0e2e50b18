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


RETURNING = """
import os
from mlagent_jax.platform import cpu
cpu.prepare()
import jax, numpy as np

def resident():
    return int(open('/proc/self/statm').read().split()[1]) * os.sysconf('SC_PAGE_SIZE')

jax.numpy.zeros(4).block_until_ready()
before = resident()
arrays = [jax.block_until_ready(jax.device_put(np.ones(1 << 24, np.float32))) for _ in range(4)]
del arrays
kept = resident() - before
cpu.return_freed_memory()
print(kept, resident() - before)
"""


def test_freed_memory_is_returned_when_asked() -> None:
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    ran = subprocess.run([sys.executable, "-c", RETURNING], env=environment, check=True, capture_output=True)
    kept, returned = map(int, ran.stdout.split())
    assert kept > 200 << 20
    assert returned < 20 << 20


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
