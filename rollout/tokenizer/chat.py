"""Render chats as token ids: ChatML over a byte-level BPE tokenizer like Qwen2's, using only `tokenizers`."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from rollout.storage.atomic_write import write_text
from rollout.storage.checkpoint_files import read_json_object
from tasks.prompt import Message, messages
from tasks.state import State

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"

END_OF_TEXT = "<|endoftext|>"
START = "<|im_start|>"
END = "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, START, END)
# Text that a tokenizer must keep.
PROBE = f"  def f(x):\n\treturn 10 ** 'é 日本 🙂'\n\n# {END} {START}user {END_OF_TEXT} Don't"

# For every folder whose config says qwen2, transformers rebuilds the tokenizer with this split, ignoring the file's.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Rendering:
    """A whole history as tokens.

    Attributes:
        token_ids: The tokens of all messages, each closed by its end token and a newline.
        spans: The (start, end) of each response, including its end token; a policy is trained on these tokens.
    """

    token_ids: list[int]
    spans: list[tuple[int, int]]


class ChatTokenizer:
    """A tokenizer that renders states as ChatML.

    Messages are encoded one by one, so the tokens of a history are an exact prefix of those of any later history. Text
    that spells a special token stays text.
    """

    def __init__(self, folder: Path, system: str):
        """Load `tokenizer.json` from `folder`, written by `train_tokenizer` or taken from a Qwen2.5 checkpoint.

        Every prompt begins with the message `system`, which is empty for a tokenizer that renders no state.

        What the file says about cutting, padding and dropout, which a training with `transformers` leaves there, is not
        used: a prompt is encoded whole, and the same each time.

        Raises:
            ValueError: If the folder has no such tokenizer, or it does not keep every text as it is.
        """
        path = Path(folder) / TOKENIZER_FILE
        if not path.is_file():
            raise ValueError(f"no tokenizer at {path}; expected a checkpoint folder with {TOKENIZER_FILE}")
        read_json_object(path)
        try:
            self.tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception for any unreadable file
            raise ValueError(
                f"{path}: not a tokenizer of the `tokenizers` library ({error}); fetch it again, or save it with an "
                "earlier version of the library"
            ) from None
        self.tokenizer.encode_special_tokens = True
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        if isinstance(self.tokenizer.model, models.BPE):
            self.tokenizer.model.dropout = None
        self.folder, self.system = Path(folder), system
        self.start_id = self._special_id(START)
        self.eos_id = self._special_id(END)
        self.pad_id = self._special_id(END_OF_TEXT)
        self._require_lossless(path)
        self._newline = self.encode("\n")
        self._generation_prompt = [self.start_id, *self.encode("assistant\n")]

    @property
    def vocab_size(self) -> int:
        """The number of tokens, special ones included; a model may have more embedding rows."""
        return self.tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        """Return the ids of plain text; special tokens in it are encoded as text, never parsed."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of a response without its final end token; other special tokens become text."""
        ids = list(token_ids)
        if ids and ids[-1] == self.eos_id:
            ids.pop()
        return self.tokenizer.decode(ids, skip_special_tokens=False)

    def prompt_ids(self, state: State) -> list[int]:
        """Return the tokens of the prompt that the response to `state` continues."""
        return self.render(state).token_ids + self._generation_prompt

    def prompts(self, state: State) -> tuple[list[int], list[int]]:
        """Return `prompt_ids(state)`, and the length of the prompt after each number of turns, from 0 on."""
        rendering = self.render(state)
        token_ids = rendering.token_ids + self._generation_prompt
        return token_ids, [*(start for start, _ in rendering.spans), len(token_ids)]

    def response_ids(self, text: str) -> list[int]:
        """Return the tokens of a response as the continuation of a prompt, end token included."""
        return [*self.encode(text), self.eos_id]

    def render(self, state: State) -> Rendering:
        """Return the whole history as tokens, with the span of each response.

        For every k, `render(state).token_ids[:spans[k][0]]` equals `prompt_ids` of the state with the first k turns.
        """
        token_ids: list[int] = []
        spans: list[tuple[int, int]] = []
        for message in messages(state, self.system):
            if message["role"] == "assistant":
                token_ids += self._generation_prompt
                start = len(token_ids)
                token_ids += self.response_ids(message["content"])
                spans.append((start, len(token_ids)))
            else:
                token_ids += self._message(message)
            token_ids += self._newline
        return Rendering(token_ids, spans)

    def _message(self, message: Message) -> list[int]:
        """Return the tokens of a system or user message: role and content encoded together, as in the chat template."""
        return [
            self.start_id,
            *self.encode(f"{message['role']}\n{message['content']}"),
            self.eos_id,
        ]

    def _require_lossless(self, path: Path) -> None:
        """Refuse a tokenizer that changes text, or that reads a token of ChatML in the text of a message."""
        ids = self.encode(PROBE)
        if {self.start_id, self.eos_id, self.pad_id} & set(ids):
            raise ValueError(
                f"{path}: reads {' or '.join(SPECIAL_TOKENS)} in plain text as the token; set special to true for them "
                "in added_tokens"
            )
        if self.decode(ids) != PROBE:
            raise ValueError(
                f"{path}: text does not come back from its tokens as it was; expected a byte-level BPE like Qwen2's; "
                "use the tokenizer.json of the original checkpoint"
            )

    def _special_id(self, token: str) -> int:
        """Return the id of a special token of ChatML."""
        token_id = self.tokenizer.token_to_id(token)
        if token_id is None:
            raise ValueError(f"the tokenizer in {self.folder} has no token {token}; expected a ChatML one (Qwen2.5's)")
        return token_id


def train_tokenizer(texts: Iterable[str], folder: Path, vocab_size: int) -> ChatTokenizer:
    """Train a byte-level BPE on `texts`, write it to `folder`, and return it; transformers loads it as Qwen2's.

    As in Qwen2.5, the special tokens have the last ids. Small texts run out of merges before `vocab_size`.

    Raises:
        ValueError: If `vocab_size` is too small for 256 bytes and the special tokens.
    """
    if vocab_size < 256 + len(SPECIAL_TOKENS):
        raise ValueError(
            f"vocab_size={vocab_size} is too small; expected at least {256 + len(SPECIAL_TOKENS)}, for 256 bytes and "
            f"{len(SPECIAL_TOKENS)} special tokens"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return write_tokenizer(tokenizer, folder, "Qwen2Tokenizer", CHAT_TEMPLATE, 32768)


def write_tokenizer(
    tokenizer: Tokenizer,
    folder: Path,
    tokenizer_class: str,
    chat_template: str | list[dict[str, str]],
    max_length: int,
) -> ChatTokenizer:
    """Write `tokenizer` to `folder` as the two tokenizer files of a checkpoint, and return it.

    Args:
        tokenizer: A tokenizer with ChatML's special tokens.
        folder: The target folder, created if missing.
        tokenizer_class: The class with which transformers loads it.
        chat_template: The chat template, as Jinja; several as objects with a `name` and a `template`.
        max_length: The context length in tokens.
    """
    added = {
        str(token_id): {
            "content": token.content,
            "lstrip": token.lstrip,
            "normalized": token.normalized,
            "rstrip": token.rstrip,
            "single_word": token.single_word,
            "special": token.special,
        }
        for token_id, token in tokenizer.get_added_tokens_decoder().items()
    }
    config = {
        "tokenizer_class": tokenizer_class,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "bos_token": None,
        "chat_template": chat_template,
        "clean_up_tokenization_spaces": False,
        "eos_token": END,
        "errors": "replace",
        "extra_special_tokens": [START],
        "model_max_length": max_length,
        "pad_token": END_OF_TEXT,
        "split_special_tokens": False,
        "unk_token": None,
    }
    write_text(folder / CONFIG_FILE, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    write_text(folder / TOKENIZER_FILE, tokenizer.to_str(pretty=True))
    return ChatTokenizer(folder, "")
