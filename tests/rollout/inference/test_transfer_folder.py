"""Weights travel through memory if there is room for them, and nothing of them stays there."""

import subprocess
import sys
from pathlib import Path

import pytest

from rollout.inference import transfer_folder as module
from rollout.inference.transfer_folder import PREFIX, SHARED_MEMORY, remove_stale, transfer_folder

HOLDER = """
import sys, time
from pathlib import Path
from rollout.inference.transfer_folder import transfer_folder
with transfer_folder(Path("nowhere"), 1) as folder:
    print(folder, flush=True)
    time.sleep(600)
"""
in_memory = pytest.mark.skipif(not module.has_room(SHARED_MEMORY, 1), reason="needs a memory file system")


@in_memory
def test_folder_is_in_memory_and_gone_afterwards(tmp_path: Path) -> None:
    with transfer_folder(tmp_path, 1000) as folder:
        assert folder.parent == SHARED_MEMORY and folder.is_dir()
        (folder / "weights").write_bytes(b"1")
    assert not folder.exists()


@pytest.mark.parametrize("lack", ["file system", "space", "memory"])
def test_folder_is_the_other_one_if_memory_has_no_room(
    lack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared_memory = tmp_path if lack == "file system" else SHARED_MEMORY
    if lack == "memory":
        monkeypatch.setattr(module, "available_memory", lambda: 1000)
    num_bytes = 10**15 if lack == "space" else 1000
    with transfer_folder(tmp_path / "other", num_bytes, shared_memory=shared_memory) as folder:
        assert folder == tmp_path / "other"


@in_memory
def test_folder_of_a_killed_process_is_removed_and_that_of_a_running_one_stays() -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert folder.name.startswith(PREFIX)
        remove_stale(SHARED_MEMORY)
        assert folder.is_dir()
        process.kill()
        process.communicate()
        remove_stale(SHARED_MEMORY)
        assert not folder.exists()
    finally:
        process.kill()
        process.wait()
