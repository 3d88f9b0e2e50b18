"""Weights go through memory to a server that this process started, and through the run directory to others."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.model.hf import save_hf
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.run.run_dir import RunDir
from mlagent_jax.stages import ppo_training
from rollout.inference.transfer_folder import SHARED_MEMORY, has_room


@pytest.fixture
def run_dir(tmp_path: Path, make_model: Callable[..., Transformer]) -> RunDir:
    found = RunDir(tmp_path)
    save_hf(make_model(), found.sft_policy)
    return found


@pytest.mark.skipif(not has_room(SHARED_MEMORY, 2**20), reason="needs a memory file system")
def test_the_runs_own_server_gets_its_weights_through_memory(run_dir: RunDir) -> None:
    with ppo_training.weights_folder(load_config(), run_dir) as folder:
        assert folder.parent == SHARED_MEMORY


def test_room_is_wanted_for_two_versions_in_the_servers_type(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = []

    def transfer_folder(*arguments: object) -> AbstractContextManager[Path]:
        wanted.append(arguments)
        return nullcontext(run_dir.temporary)

    monkeypatch.setattr(ppo_training, "transfer_folder", transfer_folder)
    for dtype in ("float32", "bfloat16"):
        ppo_training.weights_folder(load_config(None, [f"server.dtype={dtype}"]), run_dir)
    (fallback, full, _), (_, half, _) = wanted
    assert fallback == run_dir.temporary and full == 2 * half
    weights = (run_dir.sft_policy / "model.safetensors").stat().st_size
    assert weights < full < 2.1 * weights


@pytest.mark.parametrize("setting", ["server.address=http://elsewhere:8000", "server.new_weights=restart"])
def test_other_servers_find_their_weights_in_the_run_directory(setting: str, run_dir: RunDir) -> None:
    with ppo_training.weights_folder(load_config(None, [setting]), run_dir) as folder:
        assert folder == run_dir.temporary
