"""Convert the tokenizer in a GGUF file's metadata to the tokenizer files of a checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from rollout.tokenizer.chat import CHAT_TEMPLATE, ChatTokenizer, write_tokenizer

NORMAL, CONTROL = 1, 3  # token types of the format
KIND = ("gpt2", "smollm")
TEMPLATE = "tokenizer.chat_template"  # the key of the default one; those of others end with their names


def write_gguf_tokenizer(metadata: Mapping[str, Any], folder: Path, max_length: int) -> ChatTokenizer:
    """Write the tokenizer of a GGUF file to `folder` with its chat templates (ChatML if it has none), and return it.

    It is a byte-level BPE that splits text like SmolLM: digits one by one, the rest like GPT-2. If `AutoTokenizer` of
    transformers 5 loads a folder whose config says qwen2, it replaces this split by Qwen2's;
    `PreTrainedTokenizerFast` keeps it.

    Args:
        metadata: The metadata of the GGUF file.
        folder: The target folder, created if missing.
        max_length: The context length in tokens.

    Raises:
        ValueError: If it is another kind of tokenizer, or has no ChatML tokens.
    """
    kind = (metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre"))
    if kind != KIND:
        raise ValueError(
            f"the tokenizer is {kind[0]!r} with the split {kind[1]!r}; expected {KIND[0]!r} with {KIND[1]!r}"
        )
    for key in ("add_bos_token", "add_eos_token", "add_space_prefix"):
        if metadata.get(f"tokenizer.ggml.{key}"):
            raise ValueError(f"tokenizer.ggml.{key} is true; expected a tokenizer that adds nothing to the text")
    tokens, types, merges = (_list(metadata, name) for name in ("tokens", "token_type", "merges"))
    if unknown := set(types) - {NORMAL, CONTROL}:
        raise ValueError(f"tokens of type {min(unknown)}; expected normal ({NORMAL}) and control ({CONTROL}) ones")
    vocabulary = {token: index for index, token in enumerate(tokens)}
    try:
        bpe = models.BPE(vocab=vocabulary, merges=[tuple(merge.split(" ")) for merge in merges])
    except Exception as error:  # the library raises bare Exception for any unreadable vocabulary
        raise ValueError(f"tokenizer.ggml.merges do not fit tokenizer.ggml.tokens: {error}") from None
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, type_ in zip(tokens, types, strict=True) if type_ == CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return write_tokenizer(tokenizer, folder, "PreTrainedTokenizerFast", _templates(metadata), max_length)


def _templates(metadata: Mapping[str, Any]) -> str | list[dict[str, str]]:
    """Return the chat template, or all of them with their names if there are several."""
    default = metadata.get(TEMPLATE, CHAT_TEMPLATE)
    named = {key.removeprefix(f"{TEMPLATE}."): text for key, text in metadata.items() if key.startswith(f"{TEMPLATE}.")}
    if not named:
        return default
    return [{"name": name, "template": text} for name, text in {"default": default, **named}.items()]


def _list(metadata: Mapping[str, Any], name: str) -> list[Any]:
    value = metadata.get(f"tokenizer.ggml.{name}")
    if not isinstance(value, list):
        raise ValueError(f"no tokenizer.ggml.{name} in the metadata; expected a file that contains its tokenizer")
    return value
