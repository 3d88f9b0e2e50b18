"""The export stage: the policy after PPO as a Hugging Face directory that transformers and vLLM load as it is."""

import os
import shutil
from typing import Any

from mlagent_jax.configuration.schema import Config
from mlagent_jax.model.hf import check_hf
from mlagent_jax.run.run_dir import RunDir
from mlagent_jax.tracking.progress import Reporter
from rollout.storage.atomic_write import write_json
from rollout.tokenizer.chat import ChatTokenizer
from tasks.checksum import sha256_of


def run(config: Config, run_dir: RunDir, reporter: Reporter) -> dict[str, Any]:
    """Leave the policy in `export/`; returns the bytes of all its files and the SHA-256 of those with weights.

    Weights, `config.json`, the tokenizer with its chat template and `generation_config.json` are put together aside, as
    files, so that the model needs to fit no device; the finished folder then takes its name.

    Raises:
        FileNotFoundError: if there is no policy to export.
        ValueError: if its weights do not fit its config, or it has no tokenizer.
    """
    folder, aside = run_dir.path("export"), run_dir.path("tmp", "export")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        check_hf(run_dir.ppo_policy)
        shutil.copytree(run_dir.ppo_policy, aside)
        write_json(aside / "generation_config.json", generation_config(config, ChatTokenizer(run_dir.tokenizer)))
        num_bytes = sum(path.stat().st_size for path in aside.iterdir())
        sha256 = {path.name: sha256_of(path) for path in sorted(aside.glob("*.safetensors"))}
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    reporter.note(f"exported: {folder}, {num_bytes / 2**20:.1f} MiB")
    return {"bytes": num_bytes, "weights_sha256": sha256}


def generation_config(config: Config, tokenizer: ChatTokenizer) -> dict[str, Any]:
    """Return how the policy is to be sampled: as in its training, to the end of its turn."""
    return {
        "bos_token_id": tokenizer.pad_id,
        "do_sample": True,
        "eos_token_id": tokenizer.eos_id,
        "max_new_tokens": config.ppo.max_response_tokens,
        "pad_token_id": tokenizer.pad_id,
        "temperature": config.ppo.temperature,
        "top_k": 0,
        "top_p": 1.0,
    }
