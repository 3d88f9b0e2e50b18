"""The stage `export`: the policy after PPO as a Hugging Face directory that transformers and vLLM load."""

import os
import shutil
from pathlib import Path
from typing import Any

from mlagent_jax.configuration.schema import PPO
from mlagent_jax.stages.stage import Stage, StageContext
from rollout.inference.canary_file import FILE as CANARY
from rollout.storage.atomic_write import write_json
from rollout.storage.digests import DIGESTS, require_policy
from rollout.storage.run_layout import EXPORT
from rollout.storage.system_errors import copy_folder
from rollout.tokenizer.beside_weights import GENERATION_CONFIG, read_token_ids
from rollout.tokenizer.chat import ChatTokenizer
from tasks.checksum import sha256_of
from tasks.units import MIB


class Export(Stage):
    """Export the policy after PPO."""

    name = "export"
    settings = ()
    after = ("ppo",)
    outputs = (EXPORT,)

    def run(self, context: StageContext) -> dict[str, Any]:
        """Write `export/`; return the bytes of all its files and the SHA-256 of those with weights.

        Raises:
            FileNotFoundError: If there is no policy to export.
            ValueError: If its weights do not fit its config, or it has no tokenizer.
        """
        run_dir = context.run_dir
        require_policy(run_dir, "ppo")
        temporary = run_dir.temporary / "export"
        figures = export_policy(run_dir.ppo_policy, run_dir.tokenizer, context.config.ppo, run_dir.export, temporary)
        context.reporter.note(f"exported: {run_dir.export}, {figures['bytes'] / MIB:.1f} MiB")
        return figures


STAGE = Export()


def export_policy(policy: Path, tokenizer: Path, ppo: PPO, folder: Path, temporary: Path) -> dict[str, Any]:
    """Write a policy as a Hugging Face directory, replacing `folder`; return its size and the SHA-256 of its weights.

    Weights, `config.json`, the tokenizer with its chat template and `generation_config.json` are copied as files into
    a temporary folder, so that the model need not fit a device; the complete folder is then renamed.

    Args:
        policy: The saved policy.
        tokenizer: The folder of its tokenizer.
        ppo: The section with the sampling settings of actions.
        folder: The directory to write.
        temporary: A path on the same file system, where the directory is put together.

    Raises:
        FileNotFoundError: If there is no such policy.
        ValueError: If its weights do not fit its config, or it has no tokenizer.
    """
    from mlagent_jax.model.hf import check_hf

    shutil.rmtree(temporary, ignore_errors=True)
    try:
        check_hf(policy)
        copy_folder(policy, temporary, without=(CANARY, DIGESTS))
        content = generation_config(ppo, ChatTokenizer(tokenizer, ""), policy / GENERATION_CONFIG)
        write_json(temporary / GENERATION_CONFIG, content)
        num_bytes = sum(path.stat().st_size for path in temporary.rglob("*") if path.is_file())
        sha256 = {path.name: sha256_of(path) for path in sorted(temporary.glob("*.safetensors"))}
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return {"bytes": num_bytes, "weights_sha256": sha256}


def generation_config(ppo: PPO, tokenizer: ChatTokenizer, original: Path) -> dict[str, Any]:
    """Return the content of `generation_config.json`: sample as in training, to the end of the turn.

    The tokens that the original names stay: those that end a response, to which the one of the turn is added if it is
    missing, and those for padding and for the beginning.

    Args:
        ppo: The section with the sampling settings of actions.
        tokenizer: The policy's tokenizer.
        original: The `generation_config.json` of the checkpoint that was trained; it need not exist.

    Raises:
        ValueError: If the original is damaged.
    """
    kept = read_token_ids(original) if original.is_file() else {}
    ends = kept.get("eos_token_id", tokenizer.eos_id)
    if ends != tokenizer.eos_id:
        others = ends if isinstance(ends, list) else [ends]
        kept["eos_token_id"] = others if tokenizer.eos_id in others else [tokenizer.eos_id, *others]
    return {
        "bos_token_id": tokenizer.pad_id,
        "do_sample": True,
        "eos_token_id": tokenizer.eos_id,
        "max_new_tokens": ppo.max_response_tokens,
        "pad_token_id": tokenizer.pad_id,
        "temperature": ppo.temperature,
        "top_k": 0,
        "top_p": 1.0,
        **kept,
    }
