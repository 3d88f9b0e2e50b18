"""A chat model behind any OpenAI-compatible endpoint, for the coder, the expert and ideas."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import httpx
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from rollout.errors import InfrastructureError
from tasks.prompt import Message


class _Transient(Exception):
    """A failure that trying again may cure."""


@dataclass(frozen=True)
class ChatEndpoint:
    """One model of one endpoint.

    Attributes:
        base_url: address up to and with `/v1`.
        model: the model's name there.
        error: what a failure is raised as, by the boundary it is used at.
        api_key_variable: environment variable that holds the key; `` for an endpoint without one.
        timeout_seconds: of one request.
        num_attempts: requests made before a transient failure is given up on.
        max_wait_seconds: longest pause between two attempts; they grow exponentially, with jitter.
    """

    base_url: str
    model: str
    error: type[InfrastructureError]
    api_key_variable: str = ""
    timeout_seconds: float = 120.0
    num_attempts: int = 5
    max_wait_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.api_key_variable and not os.environ.get(self.api_key_variable):
            raise ValueError(
                f"the endpoint {self.base_url} needs a key: environment variable {self.api_key_variable} is empty; "
                "set it, or name another in the configuration"
            )

    async def complete(
        self, messages: Sequence[Message], *, seed: int, temperature: float = 1.0, max_tokens: int = 1024
    ) -> str:
        """Returns the text the model answers to `messages`.

        Too many requests, server errors, timeouts and lost connections are tried again.

        Raises:
            InfrastructureError: as the endpoint's `error` type, when no answer came.
        """
        body = {
            "model": self.model,
            "messages": list(messages),
            "temperature": temperature,
            "max_tokens": max_tokens,
            "seed": seed,
        }
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(_Transient),
                stop=stop_after_attempt(self.num_attempts),
                wait=wait_random_exponential(multiplier=0.5, max=self.max_wait_seconds),
                reraise=True,
            ):
                with attempt:
                    return await self._request(body)
        except _Transient as error:
            raise self.error(
                f"{self.base_url} gave no answer in {self.num_attempts} attempts: {error}; is it up?"
            ) from error
        raise AssertionError("AsyncRetrying ends by a return or a raise")

    async def _request(self, body: dict[str, object]) -> str:
        key = os.environ.get(self.api_key_variable, "") if self.api_key_variable else ""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            async with httpx.AsyncClient(timeout=self.timeout_seconds) as client:
                url = f"{self.base_url.rstrip('/')}/chat/completions"
                reply = await client.post(url, json=body, headers=headers)
        except httpx.TransportError as error:
            raise _Transient(f"{type(error).__name__} {error}".strip()) from error
        if reply.status_code == 429 or reply.status_code >= 500:
            raise _Transient(f"status {reply.status_code}")
        if reply.status_code != 200:
            raise self.error(f"{self.base_url} answered status {reply.status_code}: {reply.text[:200]}")
        try:
            text = reply.json()["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError) as error:
            raise self.error(f"{self.base_url} answered no chat completion: {reply.text[:200]}") from error
        if not isinstance(text, str):
            raise self.error(f"{self.base_url} answered a completion without text: {reply.text[:200]}")
        return text
