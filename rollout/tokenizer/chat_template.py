"""Read the chat template of a checkpoint and run it as transformers does."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rollout.storage.checkpoint_files import read_json_object, refuse_dangling
from tasks.error_line import joined
from tasks.prompt import Message
from tasks.quoting import quoted

CONFIG_FILE = "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

Render = Callable[[Sequence[Message], bool, datetime], str]


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template and the special tokens that it may write.

    Attributes:
        source: Where it comes from, for messages.
        text: The template, as Jinja.
        tokens: The names of special tokens, such as `bos_token`, and their texts.
    """

    source: str
    text: str
    tokens: tuple[tuple[str, str], ...]


def read_chat_template(folder: Path) -> ChatTemplate:
    """Return the chat template that transformers takes by default, or ChatML's if a tokenizer has none.

    It is `chat_template.jinja`, else `chat_template` of `tokenizer_config.json`: a text, or a list of named ones, of
    which `default` is taken.

    Raises:
        OSError: If a file cannot be read.
        ValueError: If a file is damaged, or none of several templates is the default.
    """
    path = folder / CONFIG_FILE
    config = read_json_object(path) if path.is_file() else {}
    tokens = tuple(_special_tokens(config).items())
    refuse_dangling(own := folder / TEMPLATE_FILE)
    if own.is_file():
        try:
            return ChatTemplate(str(own), own.read_text(encoding="utf-8"), tokens)
        except UnicodeDecodeError as error:
            raise ValueError(f"{own}: not a text in UTF-8 ({error}); fetch it again") from None
    stated = config.get("chat_template")
    if isinstance(stated, list) and all(isinstance(each, dict) for each in stated):
        named = {each.get("name"): each.get("template") for each in stated}
        if "default" not in named:
            raise ValueError(f"{path}: none of its chat templates is named default; give the one to use that name")
        stated = named["default"]
    if stated is None:
        return ChatTemplate(f"the ChatML template, taken because {folder} has none,", CHATML, tokens)
    if not isinstance(stated, str):
        raise ValueError(f"{path}: chat_template is {quoted(stated)}; expected a text; fetch the file again")
    return ChatTemplate(f"chat_template of {path}", stated, tokens)


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    """Return the special tokens in the content of `tokenizer_config.json`, such as `pad_token`, by name."""
    stated = {name: value for name, value in config.items() if name.endswith("_token")}
    texts = {name: value.get("content") if isinstance(value, dict) else value for name, value in stated.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def compiled(template: ChatTemplate) -> Render:
    """Return a function that renders messages with or without the prompt of the next response, on a given day.

    The template has the functions and settings that transformers provides. Whatever it raises becomes a ValueError.

    Raises:
        ValueError: If it is not a Jinja template.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    try:
        program = environment.from_string(template.text)
    except (jinja2.TemplateError, RecursionError) as error:
        raise ValueError(f"is not a Jinja template ({joined(str(error))})") from None

    def render(chat: Sequence[Message], add_generation_prompt: bool, day: datetime) -> str:
        try:
            return program.render(
                messages=[dict(message) for message in chat],
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                strftime_now=day.strftime,
                **dict(template.tokens),
            )
        except Exception as error:  # a program that can raise anything
            raise ValueError(f"fails on a conversation of {len(chat)} messages ({joined(str(error))})") from None

    return render


class _Generation(Extension):
    """The tags with which some templates mark responses; they write nothing."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return what stands between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    """Return JSON without the escapes for HTML of Jinja's own filter."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)
