"""The sections `expert` and `coder` of the configuration: the models that act and that edit scripts."""

from typing import Literal

from pydantic.dataclasses import dataclass

from mlagent_jax.configuration.value_types import STRICT, Count, NonNegative, Positive, Share
from rollout.options import EditFormat, StructuredOutputs


@dataclass(frozen=True, config=STRICT)
class EndpointModel:
    """The model behind the expert or the coder: the bundled scripted one, or one at an OpenAI-compatible endpoint."""

    kind: Literal["scripted", "endpoint"] = "endpoint"
    """scripted: the bundled scripted one, which needs no network; endpoint: a model behind an OpenAI-compatible API."""
    base_url: str | None = None
    """Address of the endpoint, such as https://api.openai.com/v1; only for kind endpoint."""
    model: str | None = None
    """Name of the model at the endpoint; only for kind endpoint."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the API key; the key is never stored. null: no key is sent."""
    max_concurrent: Count | None = None
    """Maximum number of concurrent requests; at least as many episodes run concurrently. Up to it, their number grows
    while the endpoint answers, and falls when it refuses requests or answers too late. null: 256, whatever the number
    of episodes."""
    timeout_seconds: Positive = 120.0
    """Timeout of one request, in seconds; a request that times out is retried."""
    max_response_tokens: Count = 4096
    """Maximum tokens of a response, reasoning tokens included."""
    max_empty_share: Share = 0.5
    """Maximum share of responses without text, such as those with nothing but reasoning, among the last 20; the stage
    stops above it. 1: it never stops."""
    requests_per_minute: Count | None = None
    """Maximum requests per minute; null: no limit."""
    tokens_per_minute: Count | None = None
    """Maximum tokens of requests and responses per minute; null: no limit."""
    budget_tokens: Count | None = None
    """Maximum tokens of requests and responses in the whole run; the stage stops when they are used up. null: no
    limit."""
    budget_dollars: Positive | None = None
    """Maximum cost of the whole run, in dollars; the stage stops when it is spent. Needs the prices. null: no limit."""
    input_price: NonNegative = 0.0
    """Price of a million prompt tokens, in dollars."""
    cached_input_price: NonNegative | None = None
    """Price of a million prompt tokens that the endpoint finds in its prefix cache, in dollars; null: input_price."""
    output_price: NonNegative = 0.0
    """Price of a million response tokens, in dollars."""


@dataclass(frozen=True, config=STRICT)
class ExpertModel(EndpointModel):
    """The model behind the expert."""

    structured_outputs: StructuredOutputs = "none"
    """Field that makes responses valid actions; only for kind endpoint. grammar: vLLM's structured_outputs;
    json_schema: response_format."""


@dataclass(frozen=True, config=STRICT)
class CoderModel(EndpointModel):
    """The model behind the coder."""

    edit_format: EditFormat = "script"
    """Form of the edits that the coder is asked for; only for kind endpoint. script: the whole edited script, as in the
    paper; blocks: search/replace blocks."""


PAPER_EXPERT = ExpertModel(base_url="https://api.openai.com/v1", model="gpt-4o-mini", api_key_env="OPENAI_API_KEY")
PAPER_CODER = CoderModel(base_url="http://127.0.0.1:8001/v1", model="Qwen/Qwen2.5-Coder-32B-Instruct")
