"""Write a conversation as tokens, where the fixed texts of its chat template alternate with plain text."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer


@dataclass(frozen=True)
class FixedText:
    """A fixed text whose added tokens have become ids.

    Attributes:
        head: The text up to the first added token, the whole text if there is none.
        token_ids: The tokens from the first added token to the last, empty if there is none.
        tail: The text after the last added token.
    """

    head: str
    token_ids: tuple[int, ...] = ()
    tail: str = ""


def fixed_text(text: str, tokenizer: Tokenizer, encode: Callable[[str], list[int]]) -> FixedText:
    """Return a text of a chat template with its added tokens, which are parsed here and never in a message."""
    added = {token.content: token_id for token_id, token in tokenizer.get_added_tokens_decoder().items()}
    longest_first = sorted(added, key=len, reverse=True)
    head, *rest = re.split(f"({'|'.join(map(re.escape, longest_first))})", text) if added else [text]
    if not rest:
        return FixedText(head)
    *middle, tail = rest
    token_ids = [token_id for each in middle for token_id in ([added[each]] if each in added else encode(each))]
    return FixedText(head, tuple(token_ids), tail)


class TokenWriter:
    """The tokens of a conversation; neighboring texts are encoded as one."""

    def __init__(self, encode: Callable[[str], Sequence[int]]):
        self.token_ids: list[int] = []
        self._encode = encode
        self._text = ""

    def fixed(self, fixed: FixedText) -> None:
        """Append a fixed text."""
        self._text += fixed.head
        if fixed.token_ids:
            self.border()
            self.token_ids += fixed.token_ids
            self._text = fixed.tail

    def plain(self, text: str) -> None:
        """Append plain text."""
        self._text += text

    def tokens(self, token_ids: Sequence[int]) -> tuple[int, int]:
        """Append tokens after a border between tokens, and return where they start and end."""
        self.border()
        start = len(self.token_ids)
        self.token_ids += token_ids
        return start, len(self.token_ids)

    def border(self) -> None:
        """Let no token reach from the text so far into what follows."""
        if self._text:
            self.token_ids += self._encode(self._text)
            self._text = ""
