"""Convert the tokenizer in a GGUF file's metadata to the tokenizer files of a checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from rollout.tokenizer.chat import QWEN2_SPLIT, SPECIAL_TOKENS, ChatTokenizer, write_tokenizer
from rollout.tokenizer.chat_template import CHATML
from tasks.error_line import joined
from tasks.quoting import quoted

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # token types of the format
MODEL = "gpt2"  # a byte-level BPE
CLASSES = {"smollm": "PreTrainedTokenizerFast", "qwen2": "Qwen2Tokenizer"}  # in transformers, by the kind of split
TEMPLATE = "tokenizer.chat_template"  # the key of the default one; those of others end with their names


def write_gguf_tokenizer(metadata: Mapping[str, Any], folder: Path, max_length: int) -> ChatTokenizer:
    """Write the tokenizer of a GGUF file to `folder` with its chat templates (ChatML if it has none), and return it.

    It is a byte-level BPE that splits text like Qwen2 or like SmolLM: digits one by one, the rest like GPT-2. If
    `AutoTokenizer` of transformers 5 loads a folder whose config says qwen2, it replaces the split by Qwen2's;
    `PreTrainedTokenizerFast` keeps it. Unused tokens, which fill up the rows of an embedding, are left out.

    Args:
        metadata: The metadata of the GGUF file.
        folder: The target folder, created if missing.
        max_length: The context length in tokens.

    Raises:
        ValueError: If it is another kind of tokenizer, lacks a token of ChatML, or has a chat template that
            cannot be used; see `ChatTokenizer`.
    """
    model, split = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if model != MODEL or split not in CLASSES:
        known = " or ".join(map(repr, CLASSES))
        raise ValueError(f"the tokenizer is {model!r} with the split {split!r}; expected {MODEL!r} with {known}")
    for key in ("add_bos_token", "add_eos_token", "add_space_prefix"):
        if metadata.get(f"tokenizer.ggml.{key}"):
            raise ValueError(f"tokenizer.ggml.{key} is true; expected a tokenizer that adds nothing to the text")
    tokens, types, merges = (_list(metadata, name) for name in ("tokens", "token_type", "merges"))
    tokenizer = _tokenizer(tokens, types, merges, split)
    for token in SPECIAL_TOKENS:
        if tokenizer.token_to_id(token) is None:
            raise ValueError(f"the tokenizer has no token {token}; expected those of ChatML")
    return write_tokenizer(tokenizer, folder, CLASSES[split], _templates(metadata), max_length)


def _tokenizer(tokens: list[str], types: list[int], merges: list[Any], split: str) -> Tokenizer:
    """Return a byte-level BPE whose tokens have the ids of the lists."""
    known = {NORMAL, CONTROL, USER_DEFINED, UNUSED}
    if len(tokens) != len(types):
        raise ValueError(f"{len(types)} tokenizer.ggml.token_type for {len(tokens)} tokens; fetch the file again")
    if unknown := set(types) - known:
        raise ValueError(f"tokens of type {min(unknown)}; expected the types {', '.join(map(str, sorted(known)))}")
    kinds = dict(zip(tokens, types, strict=True))
    num_plain = max((index for index, kind in enumerate(types) if kind == NORMAL), default=-1) + 1
    vocabulary = {token: index for index, token in enumerate(tokens[:num_plain])}
    try:
        bpe = models.BPE(vocab=vocabulary, merges=[tuple(merge.split(" ", 1)) for merge in merges])
    except Exception as error:  # the library raises bare Exception for any unreadable vocabulary
        reason = joined(str(error))
        raise ValueError(
            f"tokenizer.ggml.merges do not fit tokenizer.ggml.tokens; fetch the file again ({reason})"
        ) from None
    tokenizer = Tokenizer(bpe)
    if split == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
        pieces = pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated")
        bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    else:
        pieces = pre_tokenizers.Digits(individual_digits=True)
        bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pieces, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    for token in (token for token, kind in kinds.items() if kind in (CONTROL, USER_DEFINED)):
        # One by one in the order of their ids: special tokens and others alternate.
        tokenizer.add_tokens([AddedToken(token, special=kinds[token] == CONTROL, normalized=False)])
    for index, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        if kind != UNUSED and tokenizer.token_to_id(token) != index:
            raise ValueError(f"the token {token!r} cannot have the id {index}; expected unused tokens at the end only")
    return tokenizer


def _templates(metadata: Mapping[str, Any]) -> str | list[dict[str, str]]:
    """Return the chat template, or all of them with their names if there are several."""
    default = metadata.get(TEMPLATE) or CHATML
    named = {key.removeprefix(f"{TEMPLATE}."): text for key, text in metadata.items() if key.startswith(f"{TEMPLATE}.")}
    for text in (default, *named.values()):
        if not isinstance(text, str):
            raise ValueError(f"{TEMPLATE} is {quoted(text)}; expected a text; fetch the file again")
    if not named:
        return default
    return [{"name": name, "template": text} for name, text in {"default": default, **named}.items()]


def _list(metadata: Mapping[str, Any], name: str) -> list[Any]:
    value = metadata.get(f"tokenizer.ggml.{name}")
    if not isinstance(value, list):
        raise ValueError(f"no tokenizer.ggml.{name} in the metadata; expected a file that contains its tokenizer")
    return value
