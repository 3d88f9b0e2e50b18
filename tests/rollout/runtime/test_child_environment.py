"""Which environment variables child processes get."""

import subprocess
import sys
from pathlib import Path

import pytest

from rollout.exploration import embedding
from rollout.runtime.child_environment import KAGGLE, NETWORK, child_environment

SECRETS = (
    *("OPENAI_API_KEY", "MY_CODER", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "WANDB_API_KEY"),
    *("VLLM_API_KEY", "CUDA_STORE_PASSWORD", "NCCL_PLUGIN_SECRET", "TORCH_HUB_TOKEN", "TPU_CREDENTIALS"),
)
ADDRESS = "http://me:pass@proxy:1"


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, "planted")
    monkeypatch.setenv("KAGGLE_KEY", "kaggle")
    monkeypatch.setenv("https_proxy", ADDRESS)


def test_keys_stay_and_what_a_gpu_server_needs_goes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = {"CUDA_HOME": "/c", "NCCL_DEBUG": "W", "LC_ALL": "C", "VLLM_USE_V2": "1", "LD_LIBRARY_PATH": "/l"}
    for name, value in needed.items():
        monkeypatch.setenv(name, value)
    environment = child_environment()
    assert needed.items() <= environment.items() and "PATH" in environment
    assert not {*SECRETS, "KAGGLE_KEY", "https_proxy"} & environment.keys()


def test_a_process_that_downloads_gets_the_proxy_and_only_the_keys_of_its_purpose() -> None:
    environment = child_environment(*NETWORK, *KAGGLE)
    assert (environment["https_proxy"], environment["KAGGLE_KEY"]) == (ADDRESS, "kaggle")
    assert not set(SECRETS) & environment.keys()


def test_the_encoder_of_ideas_gets_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, str]] = []

    def run(command: list[str], env: dict[str, str], **options: object) -> subprocess.CompletedProcess[str]:
        seen.append(env)
        return real([sys.executable, "-c", "import sys; sys.exit(1)"], env=env, capture_output=True, text=True)

    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(Exception, match="the sentence encoder failed"):
        embedding.embed_texts(["text"])
    assert not set(SECRETS) & seen[0].keys() and "PATH" in seen[0]
