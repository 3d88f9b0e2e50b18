"""A coder that is a language model behind an OpenAI-compatible endpoint."""

import hashlib

from rollout.endpoint import Answer, ChatEndpoint
from rollout.endpoint.coder_prompts import DESCRIBE_PROMPT, edit_messages, repeat_message
from rollout.endpoint.edit_answer import Incomplete, apply_answer, check_edit, has_edit, may_lack_blocks
from rollout.endpoint.edit_blocks import CannotApply
from rollout.errors import CoderError, PromptTooLong
from rollout.options import EditFormat
from rollout.types import CoderReply
from tasks.prompt import Message
from tasks.quoting import replace_unstorable

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
        chat = edit_messages(self.edit_format, source, instruction)
        drafts, reason = [source], ""
        for _ in range(NUM_ANSWERS):
            try:
                answer = await self._ask(chat)
            except PromptTooLong:
                return CoderReply(None, reason or "the script is longer than the coder can read")
            said = answer.visible_text
            try:
                edited = _apply(answer, drafts, self.edit_format)
                check_edit(source, edited)
                return CoderReply(edited)
            except Incomplete as problem:
                drafts.append(problem.script)
                repeat = repeat_message(self.edit_format, str(problem), is_incomplete=True)
                reason = str(problem)
            except CannotApply as problem:
                repeat = repeat_message(self.edit_format, str(problem), is_incomplete=False)
                reason = str(problem) if has_edit(said) else shorten_reason(said)
            if answer.is_cut:
                return CoderReply(None, "the edited script is longer than the coder can write")
            chat = [*chat, Message(role="assistant", content=said), repeat]
        return CoderReply(None, reason)

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


def _apply(answer: Answer, drafts: list[str], edit_format: EditFormat) -> str:
    """Return the script that an answer makes of the last draft that it fits. Raises CannotApply if it fits none.

    A second answer may have only what the first one lacks, or everything.
    """
    said = answer.visible_text
    if answer.is_cut and may_lack_blocks(said):
        raise CannotApply("the answer is cut")
    error = CannotApply()
    for draft in reversed(drafts):
        try:
            return apply_answer(said, draft, edit_format)
        except CannotApply as problem:
            error = problem
    raise error


def shorten_reason(answer: str) -> str:
    """Return the first line of an answer without code as the reason, at most 200 characters."""
    lines = answer.strip().removeprefix("CANNOT").strip(" :.\n").splitlines()
    return lines[0][:200] if lines else "the coder gave no code"
