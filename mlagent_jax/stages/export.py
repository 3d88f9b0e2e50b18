"""The stage `export`: the policy after PPO as a Hugging Face directory that transformers and vLLM load."""

import os
import shutil
from typing import Any

from mlagent_jax.configuration.schema import PPO
from mlagent_jax.stages.stage import Stage, StageContext
from rollout.inference.canary_file import FILE as CANARY
from rollout.storage.atomic_write import write_json
from rollout.storage.run_layout import EXPORT
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

        Weights, `config.json`, the tokenizer with its chat template and `generation_config.json` are copied as files
        into a temporary folder, so that the model need not fit a device; the complete folder is then renamed.

        Raises:
            FileNotFoundError: if there is no policy to export.
            ValueError: if its weights do not fit its config, or it has no tokenizer.
        """
        from mlagent_jax.model.hf import check_hf

        run_dir = context.run_dir
        partial = run_dir.temporary / "export"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            check_hf(run_dir.ppo_policy)
            shutil.copytree(run_dir.ppo_policy, partial, ignore=shutil.ignore_patterns(CANARY))
            generation = generation_config(context.config.ppo, ChatTokenizer(run_dir.tokenizer))
            write_json(partial / "generation_config.json", generation)
            num_bytes = sum(path.stat().st_size for path in partial.iterdir())
            sha256 = {path.name: sha256_of(path) for path in sorted(partial.glob("*.safetensors"))}
            shutil.rmtree(run_dir.export, ignore_errors=True)
            os.replace(partial, run_dir.export)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        context.reporter.note(f"exported: {run_dir.export}, {num_bytes / MIB:.1f} MiB")
        return {"bytes": num_bytes, "weights_sha256": sha256}


STAGE = Export()


def generation_config(ppo: PPO, tokenizer: ChatTokenizer) -> dict[str, Any]:
    """Return how to sample from the policy: as in its training, until the end of its turn."""
    return {
        "bos_token_id": tokenizer.pad_id,
        "do_sample": True,
        "eos_token_id": tokenizer.eos_id,
        "max_new_tokens": ppo.max_response_tokens,
        "pad_token_id": tokenizer.pad_id,
        "temperature": ppo.temperature,
        "top_k": 0,
        "top_p": 1.0,
    }
