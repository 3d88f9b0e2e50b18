"""Render chats as token ids with the chat template of a byte-level BPE tokenizer like Qwen2's."""

import functools
import json
import os
import re
from array import array
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
from rollout.tokenizer.chat_format import ChatFormat, chat_format, chat_of
from rollout.tokenizer.chat_template import CHATML, CONFIG_FILE, TEMPLATE_FILE, ChatTemplate, read_chat_template
from rollout.tokenizer.token_writer import FixedText, TokenWriter, fixed_text
from tasks.prompt import Message, messages
from tasks.quoting import quoted, quoted_list
from tasks.state import State

TOKENIZER_FILE = "tokenizer.json"

END_OF_TEXT = "<|endoftext|>"
START = "<|im_start|>"
END = "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, START, END)
# The library's own threads do not pay for single texts, and once they exist, a fork of this process prints a warning.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
NUM_REMEMBERED = 4096  # parts of conversations whose tokens are kept: some megabytes
# Text that a tokenizer must keep, with special tokens in it.
PROBE = "  def f(x):\n\treturn 10 ** 'é 日本 🙂'\n\n# {} user Don't"
MARK = re.compile(r"<[|｜][^<>|｜\s]+[|｜]>")  # how special tokens are written, for the message if one is missing

# For every folder whose config says qwen2, transformers rebuilds the tokenizer with this split, ignoring the file's.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
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
    """A tokenizer that renders states with the chat template of its folder.

    The template gives the fixed texts between the contents of messages once, when the tokenizer is loaded; see
    `chat_format`. The tokens of a history are an exact prefix of those of any later history: a response is encoded by
    itself and stays as it was sampled, even if the template would remove its reasoning in later prompts, as Qwen3's
    does. Text that spells a special token stays text.

    Attributes:
        eos_id: The token that ends a response, by the template.
        pad_id: The token for padding: `pad_token` of the configuration, else `<|endoftext|>`, else `eos_id`.
    """

    def __init__(self, folder: Path, system: str):
        """Load `tokenizer.json` and the chat template from `folder`: a checkpoint, or written by `train_tokenizer`.

        Every prompt begins with the message `system`, which is empty for a tokenizer that renders no state.

        What the file says about cutting, padding and dropout, which a training with `transformers` leaves there, is not
        used: a prompt is encoded whole, and the same each time.

        Raises:
            ValueError: If the folder has no such tokenizer, it does not keep every text as it is, or its chat template
                cannot be used turn by turn or with these tokens.
        """
        self.folder, self.system = Path(folder), system
        self.tokenizer = _load(self.folder / TOKENIZER_FILE)
        # All prompts share the system message, and the next prompt of an episode repeats all parts of the last one.
        self._encode_part = functools.lru_cache(NUM_REMEMBERED)(lambda text: array("i", self.encode(text)))
        template = read_chat_template(self.folder)
        chat = chat_format(template)
        self._strip = chat.content
        self._before_system = self._fixed(chat.before_system, template)
        self._before_user = self._fixed(chat.before_user, template)
        self._after_user = self._fixed(chat.after_user, template)
        self._before_response = self._fixed(chat.before_response, template)
        self._after_response = self._fixed(chat.after_response, template)
        if self._after_response.head or not self._after_response.token_ids:
            raise ValueError(
                f"{template.source} writes {quoted(chat.after_response)} after a response; expected an added token of "
                f"{self.folder / TOKENIZER_FILE} first, which ends the turn; put another in {TEMPLATE_FILE}"
            )
        self.eos_id = self._after_response.token_ids[0]
        self.pad_id = self._pad_id(template)
        self._require_lossless(self._fixed(chat.earlier, template))
        self._require_ids_of_the_whole(chat, template)

    @property
    def vocab_size(self) -> int:
        """The number of tokens, special ones included; a model may have more embedding rows."""
        return self.tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        """Return the ids of plain text; special tokens in it are encoded as text, never parsed."""
        # Unlike `encode`, this releases the interpreter's lock, so that threads encode in parallel.
        (encoding,) = self.tokenizer.encode_batch_fast([text], add_special_tokens=False)
        return encoding.ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of a response without its final end token; other special tokens become text."""
        ids = list(token_ids)
        if ids and ids[-1] == self.eos_id:
            ids.pop()
        return self.tokenizer.decode(ids, skip_special_tokens=False)

    def prompt_ids(self, state: State) -> list[int]:
        """Return the tokens of the prompt that the response to `state` continues."""
        return self._write(messages(state, self.system), self._before_response).token_ids

    def prompts(self, state: State) -> tuple[list[int], list[int]]:
        """Return `prompt_ids(state)`, and the length of the prompt after each number of turns, from 0 on."""
        rendering = self._write(messages(state, self.system), self._before_response)
        return rendering.token_ids, [*(start for start, _ in rendering.spans), len(rendering.token_ids)]

    def response_ids(self, text: str) -> list[int]:
        """Return the tokens of a response as the continuation of a prompt, end token included."""
        return [*self.encode(text), self.eos_id]

    def render(self, state: State) -> Rendering:
        """Return the whole history as tokens, with the span of each response.

        For every k, `render(state).token_ids[:spans[k][0]]` equals `prompt_ids` of the state with the first k turns.
        """
        return self._write(messages(state, self.system), self._after_user)

    def _write(self, chat: Sequence[Message], closing: FixedText) -> Rendering:
        """Return a conversation as tokens, with a fixed text after its last message."""
        writer = TokenWriter(self._encode_part)
        spans: list[tuple[int, int]] = []
        for message in chat:
            if message["role"] == "assistant":
                writer.fixed(self._before_response)
                start, end = writer.tokens(self._encode_part(message["content"]))
                spans.append((start, end + 1))
                writer.fixed(self._after_response)  # begins with the end token
            elif message["role"] == "system":
                writer.fixed(self._before_system)
                writer.plain(self._strip(message))
                writer.fixed(self._before_user)
            else:
                writer.plain(self._strip(message))
        writer.fixed(closing)
        writer.border()
        return Rendering(writer.token_ids, spans)

    def _fixed(self, text: str, template: ChatTemplate) -> FixedText:
        """Return a fixed text of the template with its tokens, all of which the tokenizer must have."""
        for token in MARK.findall(text):
            if self.tokenizer.token_to_id(token) is None:
                raise ValueError(
                    f"the tokenizer in {self.folder} has no token {token}, which {template.source} writes; expected a "
                    "template made for this tokenizer"
                )
        return fixed_text(text, self.tokenizer, self.encode)

    def _pad_id(self, template: ChatTemplate) -> int:
        """Return the id of the token for padding."""
        stated = dict(template.tokens).get("pad_token")
        if stated is None:
            found = self.tokenizer.token_to_id(END_OF_TEXT)
            return self.eos_id if found is None else found
        found = self.tokenizer.token_to_id(stated)
        if found is None:
            raise ValueError(
                f"the tokenizer in {self.folder} has no token {stated}, its pad_token; expected one of its"
            )
        return found

    def _require_lossless(self, before_earlier: FixedText) -> None:
        """Refuse a tokenizer that changes text, or that reads a token of the template in the text of a message.

        White space may be such a token, but not the end token: it marks no part of a conversation.
        """
        path = self.folder / TOKENIZER_FILE
        fixed = (self._before_system, self._before_user, self._after_user, before_earlier, self._after_response)
        added = self.tokenizer.get_added_tokens_decoder()
        written = {self.pad_id, *(each for text in fixed for each in text.token_ids)} & set(added)
        structure = {each for each in written if each == self.eos_id or not added[each].content.isspace()}
        names = [added[token_id].content for token_id in sorted(structure)]
        in_text = [token.content for token in added.values() if not token.special]  # tokens also in plain text
        probe = PROBE.format(" ".join([*names, *in_text]))
        ids = self.encode(probe)
        if structure & set(ids):
            raise ValueError(
                f"{path}: reads {quoted_list(added[each].content for each in sorted(structure & set(ids)))} in plain "
                "text as the token; set special to true in added_tokens"
            )
        if self.decode(ids) != probe:
            raise ValueError(
                f"{path}: text does not come back from its tokens as it was; expected a byte-level BPE like Qwen2's, "
                "and no added token that removes white space; use the tokenizer.json of the original checkpoint"
            )

    def _require_ids_of_the_whole(self, chat: ChatFormat, template: ChatTemplate) -> None:
        """Refuse a template whose conversations have other tokens as a whole than put together from parts."""
        # Any vocabulary of English joins a space and "the".
        for example in (chat_of(0), chat_of(2, response="the answer {}")):
            self.tokenizer.encode_special_tokens = False
            whole = self.encode(chat.prompt(example))
            self.tokenizer.encode_special_tokens = True
            if whole != self._write(example, self._before_response).token_ids:
                raise ValueError(
                    f"{template.source} joins texts so that the parts of a conversation have other tokens than the "
                    "whole (a space before a response does, and an added token that removes white space beside it); "
                    f"put another in {TEMPLATE_FILE}"
                )


def _load(path: Path) -> Tokenizer:
    """Return the tokenizer in a file, without cutting, padding or dropout, and with special tokens as text."""
    if not path.is_file():
        raise ValueError(f"no tokenizer at {path}; expected a checkpoint folder with {TOKENIZER_FILE}")
    read_json_object(path)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for any unreadable file
        raise ValueError(
            f"{path}: not a tokenizer of the `tokenizers` library ({error}); fetch it again, or save it with an "
            "earlier version of the library"
        ) from None
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if isinstance(tokenizer.model, models.BPE):
        tokenizer.model.dropout = None
    return tokenizer


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
    return write_tokenizer(tokenizer, folder, "Qwen2Tokenizer", CHATML, 32768)


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
