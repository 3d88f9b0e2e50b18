"""How many tokens an exchange took: as the server says where that can be true, else as its length suggests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

FIRST_BYTES, FIRST_TOKENS = 3000, 1000  # what an estimate rests on before a server has said anything
MAX_BYTES_A_TOKEN = 64  # on average over a text; the longest tokens there are, of blanks, have 128
TEMPLATE_TOKENS = 16  # that a chat template may put around a message
HIDDEN_INPUT = 8192  # tokens that a server may add by its template and system prompt
HIDDEN_OUTPUT = 4  # times the limit that a model which thinks aside may write


@dataclass(frozen=True)
class Usage:
    """Tokens of one request.

    Attributes:
        input: of the prompt, those from the cache included.
        cached: of those, what the server had in its prefix cache.
        output: of the answer, with what was thought aside.
        estimated: whether any of the three is our estimate.
    """

    input: int
    cached: int
    output: int
    estimated: bool = False

    @property
    def tokens(self) -> int:
        """Input and output together."""
        return self.input + self.output


def most_tokens(messages: Sequence[str]) -> int:
    """Return a number of tokens that a chat of these messages hardly exceeds: no token has less than a byte."""
    return sum(len(message.encode("utf-8", "replace")) + TEMPLATE_TOKENS for message in messages)


@dataclass
class TokenCounter:
    """Tokens of texts by their UTF-8 length, at the rate that the server's own counts have shown."""

    num_bytes: int = field(default=FIRST_BYTES, init=False)
    num_tokens: int = field(default=FIRST_TOKENS, init=False)

    def estimate(self, text: str) -> int:
        """Return about how many tokens `text` has, at least 1 where it is not empty."""
        return -(-len(text.encode("utf-8", "replace")) * self.num_tokens // self.num_bytes)

    def read(self, prompt: str, answer: str, said: object, max_tokens: int) -> Usage:
        """Return the usage of an exchange, an estimate for each number that is missing or cannot be true.

        Args:
            prompt: the request's text.
            answer: the answer's.
            said: the `usage` of the server's reply, whatever it is.
            max_tokens: the limit that the request set for its answer.
        """
        told = said if isinstance(said, Mapping) else {}
        sizes = [len(text.encode("utf-8", "replace")) for text in (prompt, answer)]
        fewest = [-(-size // MAX_BYTES_A_TOKEN) for size in sizes]
        most = sizes[0] + HIDDEN_INPUT, sizes[1] + HIDDEN_OUTPUT * max_tokens
        given = _count(told.get("prompt_tokens"), fewest[0], most[0])
        written = _count(told.get("completion_tokens"), fewest[1], most[1])
        if given is not None and written is not None:
            self.num_bytes += sum(sizes)
            self.num_tokens += given + min(written, sizes[1])  # what was thought aside has no bytes here
        details = told.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, Mapping) else None
        from_cache = 0 if cached is None else _count(cached, 0, given or 0)
        return Usage(
            input=self.estimate(prompt) if given is None else given,
            cached=from_cache or 0,
            output=self.estimate(answer) if written is None else written,
            estimated=None in (given, written, from_cache),
        )


def _count(value: object, least: int, most: int) -> int | None:
    """Return `value` as a number of tokens, None where it is no such number or out of bounds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        return None
    return int(value) if value == int(value) else None
