"""Count the tokens of an exchange: as reported by the server if plausible, otherwise estimated from the text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

FIRST_BYTES, FIRST_TOKENS = 3000, 1000  # the basis of estimates before a server has reported any counts
MAX_BYTES_PER_TOKEN = 64  # average over a text; the longest tokens, of blanks, have 128 bytes
TEMPLATE_TOKENS = 16  # tokens that a chat template may add to a message
HIDDEN_INPUT = 8192  # tokens that a server may add with its template and system prompt
HIDDEN_OUTPUT = 4  # multiple of the token limit that a model with hidden reasoning may write


@dataclass(frozen=True)
class Usage:
    """Tokens of one request.

    Attributes:
        input: Tokens of the prompt, including cached ones.
        cached: Tokens of the prompt found in the server's prefix cache.
        output: Tokens of the answer, including hidden reasoning.
        estimated: Whether any of the three is an estimate.
    """

    input: int
    cached: int
    output: int
    estimated: bool = False

    @property
    def tokens(self) -> int:
        """The tokens of input and output together."""
        return self.input + self.output


def most_tokens(messages: Sequence[str]) -> int:
    """Return an upper bound on the tokens of a chat with these messages: each token has at least one byte."""
    return sum(len(message.encode("utf-8", "replace")) + TEMPLATE_TOKENS for message in messages)


@dataclass
class TokenCounter:
    """An estimator of tokens from UTF-8 lengths, at the ratio observed in the server's counts."""

    num_bytes: int = field(default=FIRST_BYTES, init=False)
    num_tokens: int = field(default=FIRST_TOKENS, init=False)

    def estimate(self, text: str) -> int:
        """Return the estimated number of tokens in `text`, at least 1 if it is not empty."""
        return -(-len(text.encode("utf-8", "replace")) * self.num_tokens // self.num_bytes)

    def read(self, prompt: str, answer: str, reported: object, max_tokens: int) -> Usage:
        """Return the usage of an exchange, with an estimate for each number that is missing or implausible.

        Args:
            prompt: The text of the request.
            answer: The text of the answer.
            reported: The `usage` in the server's reply, which may have any type.
            max_tokens: The request's limit on the tokens of its answer.
        """
        counts = reported if isinstance(reported, Mapping) else {}
        sizes = [len(text.encode("utf-8", "replace")) for text in (prompt, answer)]
        fewest = [-(-size // MAX_BYTES_PER_TOKEN) for size in sizes]
        most = sizes[0] + HIDDEN_INPUT, sizes[1] + HIDDEN_OUTPUT * max_tokens
        input_tokens = _plausible(counts.get("prompt_tokens"), fewest[0], most[0])
        output_tokens = _plausible(counts.get("completion_tokens"), fewest[1], most[1])
        if input_tokens is not None and output_tokens is not None:
            self.num_bytes += sum(sizes)
            self.num_tokens += input_tokens + min(output_tokens, sizes[1])  # hidden reasoning has no bytes here
        details = counts.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, Mapping) else None
        cached_tokens = 0 if cached is None else _plausible(cached, 0, input_tokens or 0)
        return Usage(
            input=self.estimate(prompt) if input_tokens is None else input_tokens,
            cached=cached_tokens or 0,
            output=self.estimate(answer) if output_tokens is None else output_tokens,
            estimated=None in (input_tokens, output_tokens, cached_tokens),
        )


def _plausible(value: object, least: int, most: int) -> int | None:
    """Return `value` as a number of tokens, None if it is not a whole number within the bounds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        return None
    return int(value) if value == int(value) else None
