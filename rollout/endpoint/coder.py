"""A coder that is a language model behind an OpenAI-compatible endpoint."""

import ast
import hashlib
import re

from rollout.endpoint import Answer, ChatEndpoint
from rollout.errors import CoderError, PromptTooLong
from rollout.storage.utf8 import replace_unstorable
from rollout.types import CoderReply
from tasks.prompt import Message

FENCE = re.compile(r" {0,3}(`{3,})([^`]*)")  # a whole line: the backticks and the text after them

EDIT_PROMPT = """\
Edit this Python script as instructed. Answer with the whole edited script in one code block and nothing else. Change \
only what the instruction asks for. If it cannot be done, answer with CANNOT and the reason, without a code block.

Instruction: {instruction}

```python
{source}
```"""
DESCRIBE_PROMPT = """\
Describe the file {name} in at most 40 words. Look for: {things_to_look_for}

{content}"""
DESCRIBE_CHARACTERS = 20_000  # longest part of a file in the prompt
DESCRIPTION_CHARACTERS = 1500  # longest description that is kept


class EndpointCoder:
    """A coder model behind an OpenAI-compatible endpoint, such as the paper's Qwen2.5-Coder-32B-Instruct."""

    def __init__(self, endpoint: ChatEndpoint) -> None:
        self.endpoint = endpoint

    async def edit(self, source: str, instruction: str) -> CoderReply:
        """Return the edited script, or the reason why there is none. Raises CoderError without an answer.

        A script that the token limit cuts off is not returned, because half a script must not run as the edit.
        """
        try:
            answer = await self._ask(EDIT_PROMPT.format(instruction=instruction, source=source))
        except PromptTooLong:
            return CoderReply(None, "the script is longer than the coder can read")
        blocks, is_closed = code_blocks(answer.visible_text)
        code = max(blocks, key=len, default=None)
        # A fence inside the script, such as in a docstring, also ends a block; a script cut there does not parse.
        if answer.is_cut and not (is_closed and (code is None or _parses(code))):
            return CoderReply(None, "the edited script is longer than the coder can write")
        if code is None:
            return CoderReply(None, shorten_reason(answer.visible_text))
        return CoderReply(code)

    async def describe(self, name: str, content: str, things_to_look_for: str) -> str:
        """Return the model's description of a file, cut if it is long. Raises CoderError without an answer."""
        prompt = DESCRIBE_PROMPT.format(
            name=name, things_to_look_for=things_to_look_for, content=content[:DESCRIBE_CHARACTERS]
        )
        try:
            said = (await self._ask(prompt)).visible_text
        except PromptTooLong:
            return f"{len(content.splitlines())} lines, more than can be read at one time"
        return said[:DESCRIPTION_CHARACTERS]

    async def _ask(self, prompt: str) -> Answer:
        """Return the answer. Raises CoderError if it has no text, which is not the fault of the agent that asked."""
        prompt = replace_unstorable(prompt)  # an instruction may contain characters that UTF-8 cannot encode
        # The same question gets the same seed, so that a repeated action gets the same answer if the endpoint is
        # deterministic.
        seed = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4], "big")
        message = Message(role="user", content=prompt)
        answer = await self.endpoint.ask([message], seed=seed, temperature=0.0)
        if not answer.visible_text:
            raise CoderError(
                f"the coder's answer has no text (finish_reason {answer.end}); see coder.max_response_tokens"
            )
        return answer


def code_blocks(answer: str) -> tuple[list[str], bool]:
    """Return the non-empty fenced blocks of an answer, and whether the last one was closed.

    A block ends at a line of only backticks, at least as many as opened it.
    """
    blocks: list[str] = []
    block: list[str] | None = None
    marks = ""
    for line in answer.replace("\r\n", "\n").split("\n"):
        fence = FENCE.fullmatch(line)
        if block is None:
            if fence:
                block, marks = [], fence[1]
        elif fence and len(fence[1]) >= len(marks) and not fence[2].strip():
            if any(each.strip() for each in block):
                blocks.append("".join(f"{each}\n" for each in block))
            block = None
        else:
            block.append(line)
    return blocks, block is None


def _parses(source: str) -> bool:
    try:
        ast.parse(source)
    except (SyntaxError, ValueError):
        return False
    return True


def shorten_reason(answer: str) -> str:
    """Return the first line of an answer without code as the reason, at most 200 characters."""
    lines = answer.strip().removeprefix("CANNOT").strip(" :.\n").splitlines()
    return lines[0][:200] if lines else "the coder gave no code"
