"""The memory is that of the machine, or of the control group around the process."""

from pathlib import Path

import pytest

from rollout.runtime import machine_memory
from rollout.runtime.machine_memory import available_memory, machine_memory_mb
from tasks.units import GIB, MIB


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(machine_memory, "GROUP", tmp_path)
    monkeypatch.setattr(machine_memory, "OLD_GROUP", tmp_path / "memory")
    return tmp_path


def test_without_a_group_or_a_limit_it_is_the_machines(group: Path) -> None:
    total = machine_memory_mb()
    assert 256 < total < 1 << 26 and 0 < available_memory() < total * MIB
    (group / "memory.max").write_text("max\n")
    assert machine_memory_mb() == total and available_memory() > 0


@pytest.mark.parametrize("file", ["memory.max", "memory/memory.limit_in_bytes"])
def test_a_group_with_less_is_the_limit(group: Path, file: str) -> None:
    (group / file).parent.mkdir(exist_ok=True)
    (group / file).write_text(str(200 * MIB))
    assert machine_memory_mb() == 200


def test_what_a_group_uses_is_not_available(group: Path) -> None:
    (group / "memory.max").write_text(str(200 * MIB))
    (group / "memory.current").write_text(str(150 * MIB))
    assert available_memory() == 50 * MIB
    (group / "memory.max").write_text(str(10**6 * GIB))  # more than the machine has
    assert 0 < available_memory() < 10**6 * GIB - 150 * MIB
