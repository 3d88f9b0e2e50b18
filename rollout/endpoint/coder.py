"""A coder that is a language model behind an OpenAI-compatible endpoint."""

import hashlib

from rollout.endpoint import Answer, ChatEndpoint
from rollout.endpoint.edit_answer import has_edit, read_edit
from rollout.endpoint.edit_blocks import CannotApply
from rollout.errors import CoderError, PromptTooLong
from rollout.options import EditFormat
from rollout.storage.utf8 import replace_unstorable
from rollout.types import CoderReply
from tasks.prompt import Message

EDIT_PROMPTS: dict[EditFormat, str] = {
    "script": """\
Edit this Python script as instructed. Answer with the whole edited script in one code block and nothing else. Change \
only what the instruction asks for. If it cannot be done, answer with CANNOT and the reason, without a code block.

Instruction: {instruction}

```python
{source}
```""",
    "blocks": """\
Edit this Python script as instructed. Answer with search/replace blocks and nothing else. Each block copies the lines \
to change exactly as they are in the script, and then gives the lines that replace them.

For example, this answer makes a script scale its columns, which also needs an import:

```python
<<<<<<< SEARCH
from sklearn.pipeline import make_pipeline
=======
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
>>>>>>> REPLACE
<<<<<<< SEARCH
model = make_pipeline(SVC(C=2.0))
=======
model = make_pipeline(StandardScaler(), SVC(C=2.0))
>>>>>>> REPLACE
```

Change only what the instruction asks for, and import what you add. If it cannot be done, answer with CANNOT and the \
reason.

The script:

```python
{source}
```

Instruction: {instruction}""",
}
REPEAT_PROMPTS: dict[EditFormat, str] = {
    "script": """\
This cannot be used: {error}. Answer again with the whole edited script in one code block. The script and the \
instruction are the same as before.""",
    "blocks": """\
This cannot be used: {error}. Answer again with all search/replace blocks that the instruction needs. The script and \
the instruction are the same as before.""",
}
DESCRIBE_PROMPT = """\
Describe the file {name} in at most 40 words. Look for: {things_to_look_for}

{content}"""
DESCRIBE_CHARACTERS = 20_000  # longest part of a file in the prompt
DESCRIPTION_CHARACTERS = 1500  # longest description that is kept
NUM_ANSWERS = 2  # to one edit; the second is asked for if the first cannot be used


class EndpointCoder:
    """A coder model behind an OpenAI-compatible endpoint, such as the paper's Qwen2.5-Coder-32B-Instruct."""

    def __init__(self, endpoint: ChatEndpoint, edit_format: EditFormat) -> None:
        self.endpoint = endpoint
        self.edit_format: EditFormat = edit_format

    async def edit(self, source: str, instruction: str) -> CoderReply:
        """Return the edited script, or the reason why there is none. Raises CoderError without an answer.

        If an answer cannot be used, the model is asked once more, with the answer and what is wrong with it. That does
        not help against the token limit: then half a script, or half an edit, is not used.
        """
        prompt = EDIT_PROMPTS[self.edit_format].format(instruction=instruction, source=source)
        chat = [Message(role="user", content=prompt)]
        error = ""
        for _ in range(NUM_ANSWERS):
            try:
                answer = await self._ask(chat)
            except PromptTooLong:
                return CoderReply(None, error or "the script is longer than the coder can read")
            said = answer.visible_text
            if said.startswith("CANNOT") and not has_edit(said):
                return CoderReply(None, shorten_reason(said))
            try:
                return CoderReply(read_edit(said, source, self.edit_format))
            except CannotApply as problem:
                error = str(problem)
            if answer.is_cut:
                return CoderReply(None, "the edited script is longer than the coder can write")
            repeat = REPEAT_PROMPTS[self.edit_format].format(error=error)
            chat += [Message(role="assistant", content=said), Message(role="user", content=repeat)]
        return CoderReply(None, error)

    async def describe(self, name: str, content: str, things_to_look_for: str) -> str:
        """Return the model's description of a file, cut if it is long. Raises CoderError without an answer."""
        prompt = DESCRIBE_PROMPT.format(
            name=name, things_to_look_for=things_to_look_for, content=content[:DESCRIBE_CHARACTERS]
        )
        try:
            said = (await self._ask([Message(role="user", content=prompt)])).visible_text
        except PromptTooLong:
            return f"{len(content.splitlines())} lines, more than can be read at one time"
        return said[:DESCRIPTION_CHARACTERS]

    async def _ask(self, chat: list[Message]) -> Answer:
        """Return the answer. Raises CoderError if it has no text, which is not the fault of the agent that asked."""
        # An instruction may contain characters that UTF-8 cannot encode.
        chat = [Message(role=each["role"], content=replace_unstorable(each["content"])) for each in chat]
        # The same question gets the same seed, so that a repeated action gets the same answer if the endpoint is
        # deterministic.
        text = "\n".join(each["content"] for each in chat)
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
        answer = await self.endpoint.ask(chat, seed=seed, temperature=0.0)
        if not answer.visible_text:
            raise CoderError(
                f"the coder's answer has no text (finish_reason {answer.end}); see coder.max_response_tokens"
            )
        return answer


def shorten_reason(answer: str) -> str:
    """Return the first line of an answer without code as the reason, at most 200 characters."""
    lines = answer.strip().removeprefix("CANNOT").strip(" :.\n").splitlines()
    return lines[0][:200] if lines else "the coder gave no code"
