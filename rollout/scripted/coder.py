"""Coders: who turns an edit instruction into a changed script and describes files."""

import ast
import csv
import hashlib
import io
import re

from rollout.endpoint import Answer, ChatEndpoint
from rollout.errors import PromptTooLong
from rollout.scripted.recipes import Cannot, Script, apply, recognise
from rollout.storage.utf8 import replace_unstorable
from rollout.types import CoderReply
from tasks.prompt import Message

FENCE = re.compile(r" {0,3}(`{3,})([^`]*)")  # a whole line, and what stands behind the marks
MAX_CLASSES = 40  # a column of numbers with more distinct values is called a number, not classes

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
DESCRIBE_CHARACTERS = 20_000  # of a file that a model is shown
DESCRIPTION_CHARACTERS = 1500  # of what it says of it


class ScriptedCoder:
    """The offline coder: recognises recipes in an instruction and applies them to the script's structure."""

    async def edit(self, source: str, instruction: str) -> CoderReply:
        """Return the edited script, or why there is none. It never sees a score."""
        if not source.strip():
            return CoderReply(None, "the script is empty")
        names = recognise(instruction)
        if not names:
            return CoderReply(None, "I do not understand the instruction")
        try:
            return CoderReply(apply(source, names))
        except Cannot as error:
            return CoderReply(None, str(error))

    async def describe(self, name: str, content: str, things_to_look_for: str) -> str:
        """Return a factual description of a CSV or Python file, in at most 40 words.

        The facts are the same whatever is looked for: size, columns and target of data, the model of a script.
        """
        if name.endswith(".csv"):
            return _describe_table(content)
        if name.endswith(".py"):
            return _describe_script(content)
        return f"{len(content.splitlines())} lines"


def _describe_table(content: str) -> str:
    try:
        rows = [row for row in csv.reader(io.StringIO(content, newline=None)) if row]
    except csv.Error as error:  # such as a cell longer than `csv.field_size_limit()`
        return f"{len(content.splitlines())} lines, of which the columns cannot be told ({error})"
    if not rows:
        return "an empty file"
    header, body = rows[0], rows[1:]
    columns = [[row[i] for row in body if i < len(row) and row[i]] for i in range(len(header))]
    numeric = [bool(column) and all(_is_number(value) for value in column) for column in columns]
    features = [i for i, label in enumerate(header) if label not in ("id", "target")]
    num_numeric = sum(numeric[i] for i in features)
    empty = any(len(columns[i]) < len(body) for i in features)
    text = f"{len(body)} rows, {num_numeric} number columns, {len(features) - num_numeric} word columns"
    text += ", some values missing" if empty else ""
    if "target" not in header:
        return text
    target = header.index("target")
    classes = len(set(columns[target]))
    if numeric[target] and (classes > MAX_CLASSES or any("." in value for value in columns[target])):
        return f"{text}, the target is a number"
    return f"{text}, the target has {classes} classes"


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _describe_script(content: str) -> str:
    try:
        script = Script(content)
        line = script.code(script.expression("model"))
    except Cannot as error:
        return f"{len(content.splitlines())} lines; {error}"
    return f"{len(content.splitlines())} lines, model = {line[:200]}"


class EndpointCoder:
    """A coder model behind an OpenAI-compatible endpoint, such as the paper's Qwen2.5-Coder-32B-Instruct."""

    def __init__(self, endpoint: ChatEndpoint) -> None:
        self.endpoint = endpoint

    async def edit(self, source: str, instruction: str) -> CoderReply:
        """Return the edited script, or why there is none. Raises CoderError when no answer came.

        A script that the limit on the answer cuts off is none: half a script must not run as if it were the edit.
        """
        try:
            answer = await self._ask(EDIT_PROMPT.format(instruction=instruction, source=source))
        except PromptTooLong:
            return CoderReply(None, "the script is longer than the coder can read")
        blocks, is_closed = code_blocks(answer.visible_text)
        code = max(blocks, key=len, default=None)
        # A fence within the script, such as a docstring's, ends a block too: what was cut there is no Python.
        if answer.is_cut and not (is_closed and (code is None or _parses(code))):
            return CoderReply(None, "the edited script is longer than the coder can write")
        if code is None:
            return CoderReply(None, shorten_reason(answer.visible_text))
        return CoderReply(code)

    async def describe(self, name: str, content: str, things_to_look_for: str) -> str:
        """Return the model's description of a file, cut where it is long. Raises CoderError when no answer came."""
        prompt = DESCRIBE_PROMPT.format(
            name=name, things_to_look_for=things_to_look_for, content=content[:DESCRIBE_CHARACTERS]
        )
        try:
            said = (await self._ask(prompt)).visible_text
        except PromptTooLong:
            return f"{len(content.splitlines())} lines, more than can be read at one time"
        return said[:DESCRIPTION_CHARACTERS] or f"{len(content.splitlines())} lines"

    async def _ask(self, prompt: str) -> Answer:
        prompt = replace_unstorable(prompt)  # an instruction may hold what UTF-8 cannot
        # The same question gets the same seed, so that a repeated action repeats its answer where the endpoint can.
        seed = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4], "big")
        message = Message(role="user", content=prompt)
        return await self.endpoint.ask([message], seed=seed, temperature=0.0)


def code_blocks(answer: str) -> tuple[list[str], bool]:
    """Return the fenced blocks of an answer that hold anything, and whether the last fence that opened one was closed.

    A block ends at a line of nothing but as many backticks as opened it, or more.
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
    """Return the first line of an answer without code as a reason, at most 200 characters."""
    lines = answer.strip().removeprefix("CANNOT").strip(" :.\n").splitlines()
    return lines[0][:200] if lines else "the coder gave no code"
