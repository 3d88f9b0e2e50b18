"""transformers loads the tokenizer of our folders without a warning."""

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

from mlagent_jax.model.families.qwen2 import Qwen2Config
from rollout.tokenizer.chat import SPECIAL_TOKENS, train_tokenizer
from rollout.tokenizer.gguf_tokenizer import write_gguf_tokenizer


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """The lines that transformers logs, which has a handler of its own and hands nothing on."""
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler = Lines()
    logging.getLogger("transformers").addHandler(handler)
    yield lines
    logging.getLogger("transformers").removeHandler(handler)


def write_large_tokenizer(folder: Path) -> int:
    """Write a converted tokenizer of more than 100,000 tokens, from which on transformers looks for Mistral's."""
    plain = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(f"x{i}" for i in range(100_000))]
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": [*plain, *SPECIAL_TOKENS],
        "tokenizer.ggml.token_type": [1] * len(plain) + [3] * len(SPECIAL_TOKENS),
        "tokenizer.ggml.merges": [],
    }
    return write_gguf_tokenizer(metadata, folder, 512).vocab_size


def test_converted_folder_loads_without_a_warning(
    tiny_config: Qwen2Config, warnings: list[str], tmp_path: Path
) -> None:
    content = replace(tiny_config, vocab_size=write_large_tokenizer(tmp_path)).to_hf("float32")
    (tmp_path / "config.json").write_text(json.dumps(content))
    AutoTokenizer.from_pretrained(tmp_path)
    assert warnings == []
    del content["transformers_version"]
    (tmp_path / "config.json").write_text(json.dumps(content))
    AutoTokenizer.from_pretrained(tmp_path)
    assert "incorrect regex pattern" in warnings[0]  # what the version avoids


def test_trained_tokenizer_loads_without_a_warning(
    tiny_config: Qwen2Config, warnings: list[str], tmp_path: Path
) -> None:
    train_tokenizer(["a b"], tmp_path, 300)
    AutoTokenizer.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(tiny_config.to_hf("float32")))
    AutoTokenizer.from_pretrained(tmp_path)
    assert warnings == []
