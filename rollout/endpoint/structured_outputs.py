"""Constrain an endpoint's answers to exact responses, in the two ways that endpoints take."""

from typing import Any

from rollout.options import StructuredOutputs
from tasks.response_grammar import response_grammar
from tasks.response_schema import response_schema, text_of_answer


def request_fields(kind: StructuredOutputs, max_tokens: int) -> dict[str, Any]:
    """Return the fields that constrain an answer: vLLM's `structured_outputs` or OpenAI's `response_format`.

    Args:
        kind: The kind of the constraint.
        max_tokens: The length limit of an answer, which a grammar keeps to.

    Raises:
        ValueError: If a grammar has no room within the limit.
    """
    if kind == "grammar":
        return {"structured_outputs": {"grammar": response_grammar(max_tokens)}}
    if kind == "json_schema":
        schema = {"name": "response", "strict": True, "schema": response_schema()}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    return {}


def response_text(kind: StructuredOutputs, answer: str) -> str:
    """Return the six-field response that an answer under such a constraint stands for."""
    return text_of_answer(answer) if kind == "json_schema" else answer
