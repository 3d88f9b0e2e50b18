"""Find the fixed texts that a chat template writes around the contents of a conversation.

A template is a program that sees the whole conversation, so it can write a message in another way when more messages
follow. It is run a few times on made-up conversations, which give the fixed texts and show that it writes nothing else.
The conversations that are rendered later are put together from these texts, without the template.
"""

import functools
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from rollout.tokenizer.chat_template import TEMPLATE_FILE, ChatTemplate, Render, compiled
from tasks.prompt import Message
from tasks.quoting import quoted

log = logging.getLogger(__name__)

NUM_TURNS = 3  # of the longest conversation that a template is tried on
DAY, OTHER_DAY = datetime(2001, 2, 3), datetime(2023, 11, 29)
OPENED = re.compile(r"\s*<think>\s*(</think>\s*)?")  # begins the reasoning of a response, or says that there is none
# A content that is long and has what a template could escape, replace or wrap.
LONG = "be\n\n  brief: é\r\n\tx = '日本 🙂' & \"<b>\"\n" * 100 + "end"
# Parts of responses that some templates do not keep in earlier turns, each with a response that shows it.
PARTS = {"reasoning": "<think>\nplan\n</think>\n\nanswer", "surrounding white space": "\n answer \n"}


@dataclass(frozen=True)
class ChatFormat:
    """The fixed texts of a conversation: a system message, a user message, and turns of a response and a user message.

    Attributes:
        before_system: The text before the system message.
        before_user: The text between the system message and the first user message.
        after_user: The text after the last user message if no response follows.
        before_response: The text between a user message and the response, which ends a prompt.
        after_response: The text between a response and the next user message.
        earlier: What the template itself writes before the response of an earlier turn: `before_response`, or its
            beginning, without an opened reasoning.
        strips_system: Whether white space around the system message is removed.
        strips_user: Whether white space around user messages is removed.
    """

    before_system: str
    before_user: str
    after_user: str
    before_response: str
    after_response: str
    earlier: str
    strips_system: bool = False
    strips_user: bool = False

    def content(self, message: Message) -> str:
        """Return the content of a message as it is written; responses stay as they are."""
        strips = {"system": self.strips_system, "user": self.strips_user, "assistant": False}
        return message["content"].strip() if strips[message["role"]] else message["content"]

    def prompt(self, chat: Sequence[Message]) -> str:
        """Return the text of a conversation up to the next response."""
        return self._text(chat, self.before_response)

    def template_prompt(self, chat: Sequence[Message]) -> str:
        """Return the prompt as the template writes it if it does not change responses."""
        return self._text(chat, self.earlier)

    def _text(self, chat: Sequence[Message], before_response: str) -> str:
        before = {"system": self.before_system, "user": "", "assistant": before_response}
        after = {"system": self.before_user, "user": "", "assistant": self.after_response}
        texts = [before[each["role"]] + self.content(each) + after[each["role"]] for each in chat]
        return "".join(texts) + self.before_response


@functools.lru_cache(maxsize=32)
def chat_format(template: ChatTemplate) -> ChatFormat:
    """Return the fixed texts of a template, after checking that each prompt begins with the one before.

    Responses stay as they were sampled. If the template removes the reasoning of earlier turns, the white space around
    them, or the opened reasoning at the end of a prompt, these are kept, and a line in the log says so.

    Raises:
        ValueError: If the template refuses a system message, depends on the date, or writes earlier messages in another
            way when more follow.
    """
    try:
        render = compiled(template)
        found = _with_stripping(_fixed_texts(render), render)
        _require_append_only(found, render)
    except ValueError as error:
        raise ValueError(f"{template.source} {error}; put another template in {TEMPLATE_FILE}") from None
    dropped = [part for part, response in PARTS.items() if _differs(found, render, chat_of(1, response=response))]
    if opened := found.before_response.removeprefix(found.earlier):
        dropped.append(f"{quoted(opened)} before the response")
    if dropped:
        log.warning(
            "%s does not keep all of earlier turns (%s); here they stay as they were sampled, so that each prompt "
            "begins with the one before",
            template.source,
            ", ".join(dropped),
        )
    return found


def chat_of(num_turns: int, system: str = "ruleZ", user: str = "askQ{}", response: str = "sayX{}") -> list[Message]:
    """Return a conversation whose next message is a response; `{}` becomes the number of the turn."""
    chat: list[Message] = [{"role": "system", "content": system}, {"role": "user", "content": user.format(0)}]
    for turn in range(1, num_turns + 1):
        chat.append({"role": "assistant", "content": response.format(turn)})
        chat.append({"role": "user", "content": user.format(turn)})
    return chat


def _fixed_texts(render: Render) -> ChatFormat:
    """Return the fixed texts, from conversations of no turn and of one."""
    first, second = chat_of(0), chat_of(1)
    try:
        prompt = render(first, True, DAY)
    except ValueError as error:
        _refuse_if_it_is_the_system_message(first, render, error)
        raise
    if prompt != render(first, True, OTHER_DAY):
        raise ValueError("depends on the date, so that a prompt would change from day to day")
    before_system, before_user, before_response = _between(prompt, first)
    *_, earlier, after_response, _ = _between(render(second, True, DAY), second)
    *_, after_user = _between(render(first, False, DAY), first)
    if not before_response.startswith(after_user):
        raise ValueError(f"ends a message with {quoted(after_user)}, but a prompt with {quoted(before_response)}")
    opened = before_response.removeprefix(earlier)
    if not before_response.startswith(earlier) or (opened and not OPENED.fullmatch(opened)):
        raise ValueError(
            f"writes {quoted(before_response)} before a response when it is sampled, but {quoted(earlier)} when more "
            "messages follow, so that a prompt is not the beginning of the next"
        )
    return ChatFormat(before_system, before_user, after_user, before_response, after_response, earlier)


def _refuse_if_it_is_the_system_message(chat: Sequence[Message], render: Render, error: ValueError) -> None:
    try:
        render(chat[1:], True, DAY)
    except ValueError:
        return
    raise ValueError(f"refuses a system message: it {error}") from None


def _between(text: str, chat: Sequence[Message]) -> list[str]:
    """Return the texts before, between and after the contents of a conversation."""
    texts = []
    for message in chat:
        before, content, text = text.partition(message["content"])
        if not content or message["content"] in text:
            raise ValueError(f"leaves out, moves or repeats a message of the role {message['role']}")
        texts.append(before)
    return [*texts, text]


def _differs(found: ChatFormat, render: Render, chat: Sequence[Message]) -> bool:
    return render(chat, True, DAY) != found.template_prompt(chat)


def _with_stripping(found: ChatFormat, render: Render) -> ChatFormat:
    """Return the fixed texts with whether white space around messages is removed."""
    for role in ("system", "user"):
        chat = chat_of(1, **{role: "\n  one {} \n"})
        if _differs(found, render, chat):
            found = replace(found, **{f"strips_{role}": True})
            if _differs(found, render, chat):
                raise ValueError(f"changes more than the white space around a message of the role {role}")
    return found


def _require_append_only(found: ChatFormat, render: Render) -> None:
    """Refuse a template that writes something else than the contents between the fixed texts."""
    for num_turns in range(NUM_TURNS + 1):
        for chat in (chat_of(num_turns), chat_of(num_turns, LONG, f"{{}} {LONG}", f"Thought: {{}} {LONG}")):
            expected, text = found.template_prompt(chat), render(chat, True, DAY)
            if text != expected:
                equal = (a == b for a, b in zip(text, expected, strict=False))
                at = next((i for i, same in enumerate(equal) if not same), min(len(text), len(expected)))
                raise ValueError(
                    f"does not only append to a conversation: after {num_turns} turns it writes "
                    f"{quoted(text[at : at + 40])}, expected {quoted(expected[at : at + 40])}"
                )
