"""An exported policy is a folder that transformers loads: equal logits, equal ids, equal chat template."""

import errno
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import mlagent_jax
from mlagent_jax.configuration.loading import load_config
from mlagent_jax.model.families.qwen2 import Qwen2Config
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.run.run_dir import RunDir
from mlagent_jax.stages.export import STAGE
from mlagent_jax.stages.stage import StageContext
from mlagent_jax.tracking.progress import Reporter
from mlagent_jax.training.saved_policy import save_policy
from rollout.storage.digests import write_digests
from rollout.tokenizer.chat import ChatTokenizer, train_tokenizer
from tasks.prompt import messages
from tasks.state import State

TEXT = "Script train.py prints its score, 0.8125, and saves submission.csv\n  then ends.\r\n  Ärger: 12 mm²"
STATE = State("Predict the price in train.csv.").then("Thought: edit it.", "validation r2: 0.5120")


@pytest.fixture
def run_dir(tmp_path: Path, make_model: Callable[..., Transformer], tiny_config: Qwen2Config) -> RunDir:
    """A run directory whose PPO stage has ended."""
    run_dir = RunDir(tmp_path)
    tokenizer = train_tokenizer([TEXT], run_dir.tokenizer, 300)
    shape = replace(tiny_config, vocab_size=tokenizer.vocab_size, eos_token_id=tokenizer.eos_id)
    run_dir.selection.write_text("{}")
    save_policy(make_model(shape), run_dir.ppo_policy, run_dir.tokenizer, run_dir.selection, [1, 2, 3])
    return run_dir


def export(run_dir: RunDir) -> dict[str, Any]:
    return STAGE.run(StageContext(load_config(), run_dir, Reporter()))


def test_transformers_loads_an_export_with_equal_logits_and_ids(run_dir: RunDir) -> None:
    figures = export(run_dir)
    folder = run_dir.path("export")
    assert [run_dir.path(output) for output in STAGE.outputs] == [folder]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ours = ChatTokenizer(folder, "system")
    assert tokenizer(TEXT)["input_ids"] == ours.encode(TEXT)
    told = tokenizer.apply_chat_template(messages(STATE, "system"), tokenize=False, add_generation_prompt=True)
    prompt = ours.prompt_ids(STATE)
    assert tokenizer(told)["input_ids"] == prompt
    assert tokenizer.eos_token_id == ours.eos_id
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        expected = model(torch.tensor([prompt])).logits.numpy()
    np.testing.assert_allclose(mlagent_jax.load_policy(folder).logits([prompt]), expected, rtol=1e-4, atol=1e-4)
    sampling = GenerationConfig.from_pretrained(folder)
    assert (sampling.eos_token_id, sampling.do_sample) == (ours.eos_id, True)
    assert sampling.temperature == load_config().ppo.temperature == 0.8  # as it was sampled in training
    assert figures == {
        "bytes": sum(path.stat().st_size for path in folder.iterdir()),
        "weights_sha256": {
            "model.safetensors": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        },
    }


def test_export_replaces_an_earlier_one_whole_and_leaves_nothing_else(run_dir: RunDir) -> None:
    run_dir.path("export").mkdir()
    run_dir.path("export", "old").touch()
    first = export(run_dir)
    names = {path.name for path in run_dir.path("export").iterdir()}
    weights = {"COMPLETE", "config.json", "generation_config.json", "model.safetensors"}
    assert names == weights | {"tokenizer.json", "tokenizer_config.json", "training_data.json"}
    assert export(run_dir) == first
    assert not any(run_dir.path("tmp").iterdir())


def test_full_disk_is_an_error_of_the_system_and_leaves_the_earlier_export(
    run_dir: RunDir, files_limited_to: Callable
) -> None:
    export(run_dir)
    with files_limited_to(10_000), pytest.raises(OSError, match="File too large") as error:
        export(run_dir)
    assert error.value.errno == errno.EFBIG and (run_dir.path("export") / "model.safetensors").is_file()


def test_policy_that_does_not_fit_is_not_exported(run_dir: RunDir) -> None:
    export(run_dir)
    path = run_dir.ppo_policy / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 3}))
    with pytest.raises(ValueError, match="is damaged or missing"):
        export(run_dir)
    write_digests(run_dir.ppo_policy)
    with pytest.raises(ValueError, match=r"model\.layers\.2\.\S+: missing"):
        export(run_dir)
    assert run_dir.path("export", "COMPLETE").exists()
