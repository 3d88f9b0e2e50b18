"""The one test that fails if no sandbox can be made; all others are then skipped."""

from pathlib import Path

import pytest

from rollout.executor import SandboxUnavailable
from rollout.storage.blob_store import BlobStore

from .conftest import PYTHON, open_bubblewrap


def test_a_sandbox_can_be_made_on_this_machine(tmp_path: Path) -> None:
    try:
        open_bubblewrap(BlobStore(tmp_path), PYTHON, slots=1)
    except SandboxUnavailable as error:
        pytest.fail(f"{error}; `python -m rollout.executor doctor` says what this machine has and lacks")
