"""The command `export` writes a run's newest policy as a Hugging Face directory."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mlagent_jax.configuration.loading import load_config, to_yaml
from mlagent_jax.export import main
from mlagent_jax.model.families.qwen2 import Qwen2Config
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.run.run_dir import RunDir
from mlagent_jax.training.saved_policy import save_policy
from rollout.tokenizer.chat import train_tokenizer


@pytest.fixture
def run_dir(tmp_path: Path, make_model: Callable[..., Transformer], tiny_config: Qwen2Config) -> RunDir:
    """Make a run directory whose fine-tuning has ended."""
    run_dir = RunDir(tmp_path / "run")
    run_dir.root.mkdir()
    tokenizer = train_tokenizer(["a text"], run_dir.tokenizer, 300)
    shape = replace(tiny_config, vocab_size=tokenizer.vocab_size, eos_token_id=tokenizer.eos_id)
    run_dir.selection.write_text("{}")
    run_dir.config.write_text(to_yaml(load_config()))
    save_policy(make_model(shape), run_dir.sft_policy, run_dir.tokenizer, run_dir.selection, [1, 2, 3])
    return run_dir


def test_newest_policy_of_a_run_is_written(run_dir: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "export"
    assert main(["--run", str(run_dir.root), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: exported from {run_dir.sft_policy}\n"
    weights = (out / "model.safetensors").read_bytes()
    assert weights == (run_dir.sft_policy / "model.safetensors").read_bytes()
    assert json.loads((out / "generation_config.json").read_text())["temperature"] == load_config().ppo.temperature
    assert [path.name for path in out.parent.iterdir()] == ["export"]
    shutil.copytree(run_dir.sft_policy, run_dir.ppo_policy)
    assert main(["--run", str(run_dir.root), "--out", str(tmp_path / "ppo")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'ppo'}: exported from {run_dir.ppo_policy}\n"


def test_what_cannot_be_exported_is_one_line(
    run_dir: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.yaml").write_text("")
    missing = tmp_path / "nowhere/config.yaml"
    for run, out, words in (
        (tmp_path / "nowhere", tmp_path / "out", f"{missing}: No such file or directory; check the path"),
        (tmp_path / "empty", tmp_path / "out", f"{tmp_path}/empty has no policy yet; run its stage sft first"),
        (run_dir.root, tmp_path / "empty", f"{tmp_path}/empty exists; remove it, or give another folder to --out"),
    ):
        assert main(["--run", str(run), "--out", str(out)]) == 2
        assert capsys.readouterr().err == f"error: {words}\n"
