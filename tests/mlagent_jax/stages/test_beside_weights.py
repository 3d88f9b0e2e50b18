"""The files beside a checkpoint's weights survive training and export: templates, added tokens, license, stops."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AddedToken, AutoTokenizer

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.model.adapter import add_adapter, freeze
from mlagent_jax.model.build import build_model
from mlagent_jax.model.config import Adapter
from mlagent_jax.model.families.qwen2 import Qwen2Config
from mlagent_jax.model.hf import save_hf
from mlagent_jax.model.sharding import make_mesh
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.sft.inputs import make_tokenizer
from mlagent_jax.stages.export import export_policy
from mlagent_jax.training.saved_policy import save_policy
from rollout.tokenizer.chat import train_tokenizer

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi <tool> there"}]
TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}]\n{{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n{% endif %}"
)
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:1\n"
OTHER = "{% for m in messages %}{{ m['content'] }}|{% endfor %}"


@pytest.fixture
def checkpoint(tmp_path: Path, make_model: Callable[..., Transformer], tiny_config: Qwen2Config) -> Path:
    """A checkpoint as transformers 5 saves it, with templates in files of their own, and files of earlier versions."""
    folder = tmp_path / "checkpoint"
    train_tokenizer(["Be brief. Hi there"] * 3, tmp_path / "plain", 300)
    (tmp_path / "plain" / "config.json").write_text(json.dumps(tiny_config.to_hf("float32")))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "plain")
    tokenizer.add_tokens([AddedToken("<tool>", special=False), AddedToken("<think>", special=True, lstrip=True)])
    tokenizer.chat_template = {"default": TEMPLATE, "other": OTHER}
    tokenizer.save_pretrained(folder)
    save_hf(make_model(replace(tiny_config, vocab_size=len(tokenizer))), folder)
    ids = {"bos_token_id": 5, "pad_token_id": 6, "eos_token_id": [tokenizer.eos_token_id, 7]}
    generation = {**ids, "repetition_penalty": 1.1, "temperature": 0.1, "top_p": 0.8, "do_sample": False}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    (folder / "added_tokens.json").write_text(json.dumps(tokenizer.get_added_vocab()))
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    for name in ("LICENSE", "NOTICE.txt"):
        (folder / name).write_text("of the original")
    for name in ("pytorch_model.bin", "optimizer.pt", "README.md", "trainer_state.json", "other.safetensors"):
        (folder / name).write_text("not of the trained policy")
    return folder


@pytest.fixture
def trained(checkpoint: Path, make_model: Callable[..., Transformer], tiny_config: Qwen2Config) -> Callable[..., Path]:
    """A function that returns the export of a policy that began as the checkpoint, without any training."""

    def export_of_checkpoint(adapter: Adapter | None = None) -> Path:
        model = make_model(replace(tiny_config, vocab_size=len(AutoTokenizer.from_pretrained(checkpoint))))
        if adapter is not None:
            add_adapter(freeze(model), adapter, seed=0)
        run = checkpoint.parent / "run"
        tokenizer = make_tokenizer(run / "tokenizer", "system", [], None, checkpoint)
        (run / "selection.json").write_text("{}")
        save_policy(model, run / "policy", run / "tokenizer", run / "selection.json", [1, 2, 3])
        export_policy(run / "policy", run / "tokenizer", load_config().ppo, run / "export", run / "temporary")
        assert tokenizer.vocab_size == model.config.vocab_size
        return run / "export"

    return export_of_checkpoint


@pytest.fixture
def export(trained: Callable[..., Path]) -> Path:
    return trained()


def test_templates_in_files_of_their_own_survive_fine_tuning_and_export(checkpoint: Path, export: Path) -> None:
    assert (checkpoint / "chat_template.jinja").is_file()
    assert "chat_template" not in json.loads((checkpoint / "tokenizer_config.json").read_text())
    before, after = AutoTokenizer.from_pretrained(checkpoint), AutoTokenizer.from_pretrained(export)
    for options in ({}, {"chat_template": "other"}):
        text = before.apply_chat_template(CHAT, tokenize=False, **options)
        assert text == after.apply_chat_template(CHAT, tokenize=False, **options)
        assert "Be brief." in text


def test_added_tokens_and_their_flags_survive(checkpoint: Path, export: Path) -> None:
    before, after = AutoTokenizer.from_pretrained(checkpoint), AutoTokenizer.from_pretrained(export)
    assert before.get_vocab() == after.get_vocab()
    flags = [{i: repr(token) for i, token in each.added_tokens_decoder.items()} for each in (before, after)]
    assert flags[0] == flags[1]
    assert before.special_tokens_map == after.special_tokens_map
    text = "Hi <tool> there<think><|im_end|>"
    assert before(text)["input_ids"] == after(text)["input_ids"]


def test_every_file_but_weights_and_traces_of_another_training_is_kept(checkpoint: Path, export: Path) -> None:
    kept = {path.relative_to(export) for path in export.rglob("*")}
    left_out = {str(path) for path in {path.relative_to(checkpoint) for path in checkpoint.rglob("*")} - kept}
    assert left_out == {"pytorch_model.bin", "optimizer.pt", "README.md", "trainer_state.json", "other.safetensors"}
    for name in ("LICENSE", "NOTICE.txt", "special_tokens_map.json", "added_tokens.json", "tokenizer.json"):
        assert (export / name).read_bytes() == (checkpoint / name).read_bytes()


def test_stop_tokens_of_the_original_are_kept_and_sampling_is_that_of_training(checkpoint: Path, export: Path) -> None:
    original, content = (json.loads((each / "generation_config.json").read_text()) for each in (checkpoint, export))
    ids = ("bos_token_id", "pad_token_id", "eos_token_id")
    assert {key: content[key] for key in ids} == {key: original[key] for key in ids}
    ppo = load_config().ppo
    assert (content["temperature"], content["top_p"], content["do_sample"]) == (ppo.temperature, 1.0, True)
    assert "repetition_penalty" not in content


def test_end_of_turn_is_added_to_the_stop_tokens_of_a_base_model(
    checkpoint: Path, trained: Callable[..., Path]
) -> None:
    (checkpoint / "generation_config.json").write_text(json.dumps({"eos_token_id": 7, "pad_token_id": None}))
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    content = json.loads((trained() / "generation_config.json").read_text())
    assert content["eos_token_id"] == [tokenizer.eos_token_id, 7]
    assert content["pad_token_id"] == tokenizer.pad_token_id


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("generation_config.json", "[1]", "holds an array; expected a JSON object"),
        ("generation_config.json", '{"eos_token_id": ["x"]}', "eos_token_id is .*; expected a token id"),
        ("generation_config.json", '{"eos_token_id": []}', "eos_token_id is '..'; expected a token id"),
        ("tokenizer_config.json", '{"a": {"b": 1, "b": 2}}', "states 'b' twice; remove one of the two"),
        ("tokenizer_config.json", "{", "not JSON from line 1, column 2 on"),
        ("tokenizer.json", POINTER, "a Git LFS pointer"),
        ("tokenizer.json", None, "no such file; model.path needs the tokenizer"),
        ("merges.txt", POINTER, "a Git LFS pointer"),
    ],
)
def test_damaged_file_is_named_before_the_training(
    name: str, content: Any, complaint: str, checkpoint: Path, tmp_path: Path
) -> None:
    (checkpoint / name).unlink(missing_ok=True)
    if content is not None:
        (checkpoint / name).write_text(content)
    with pytest.raises(ValueError, match=complaint) as caught:
        make_tokenizer(tmp_path / "tokenizer", "system", [], None, checkpoint)
    assert str(checkpoint / name) in str(caught.value) and "\n" not in str(caught.value)


def test_a_license_of_any_name_is_kept_and_descriptions_of_the_weights_are_not(
    checkpoint: Path, tmp_path: Path
) -> None:
    kept = {"MODEL_LICENSE", "Qwen LICENSE AGREEMENT", "EULA.md", "LICENSES/Apache-2.0", "CHAT_TEMPLATE.JINJA"}
    left_out = {"license-model.safetensors", "hf_quant_config.json"}
    (checkpoint / "LICENSES").mkdir()
    for name in kept | left_out:
        (checkpoint / name).write_text("text")
    make_tokenizer(tmp_path / "tokenizer", "system", [], None, checkpoint)
    assert all((tmp_path / "tokenizer" / name).read_text() == "text" for name in kept)
    assert not any((tmp_path / "tokenizer" / name).exists() for name in left_out)


@pytest.mark.parametrize("name", ["chat_template.jinja", "LICENSE", "tokenizer.json"])
def test_a_link_to_nothing_is_named_instead_of_left_out(name: str, checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / name).unlink()
    (checkpoint / name).symlink_to("../../blobs/0f3a")
    with pytest.raises(FileNotFoundError, match="a link to '../../blobs/0f3a', which does not exist; copy") as caught:
        make_tokenizer(tmp_path / "tokenizer", "system", [], None, checkpoint)
    assert str(checkpoint / name) in str(caught.value)


@pytest.mark.parametrize("adapter", [None, Adapter(2, 4.0, ("q_proj",))])
def test_an_export_is_a_checkpoint_to_train_from(
    adapter: Adapter | None, checkpoint: Path, trained: Callable[..., Path], tmp_path: Path
) -> None:
    export = trained(adapter)
    shutil.rmtree(checkpoint)
    tokenizer = make_tokenizer(tmp_path / "again", "system", [], None, export)
    names = {path.name for path in (tmp_path / "again").iterdir()}
    assert names == {path.name for path in export.iterdir()} - {
        "COMPLETE",
        "adapter",
        "config.json",
        "model.safetensors",
        "training_data.json",
    }
    assert (export / "adapter").is_dir() == (adapter is not None)
    settings = load_config(None, [f"model.path={export}", "adapter.rank=4", "sft.optimizer=adamw"])
    model = build_model(settings.model, settings.adapter, tokenizer, make_mesh(1, 1, 1, 1), seed=0, max_length=64)
    assert model.layers.adapter is not None and model.layers.adapter.rank == 4
