"""Helpers that send requests to the chat server of `tests/conftest.py`."""

import asyncio
from collections.abc import Callable

from rollout.endpoint import ChatEndpoint
from rollout.errors import CoderError

ASK = [{"role": "user", "content": "hello"}]


def echo(body: dict) -> str:
    return f"You said: {body['messages'][-1]['content']}"


def whole(message: dict, **rest: object) -> Callable[[dict], dict]:
    return lambda body: {"choices": [{"message": message, "finish_reason": "stop"}], **rest}


def endpoint(server, **options: object) -> ChatEndpoint:
    settings = {"error": CoderError, "max_wait_seconds": 0.01, "timeout_seconds": 5.0} | options
    return ChatEndpoint(base_url=server.address, model="some-model", **settings)  # type: ignore[arg-type]


def asking(model: ChatEndpoint, *seeds: int, **options: object) -> list[str]:
    """Return the answers to concurrent requests with these seeds, and close the endpoint."""

    async def ask() -> list[str]:
        async with model:
            asked = (model.complete(ASK, seed=seed, **options) for seed in seeds)  # type: ignore[arg-type]
            return await asyncio.gather(*asked)

    return asyncio.run(ask())


def planned(*faults: str) -> Callable[[dict, int], str]:
    """Return a fault function with these faults for successive attempts of a request, then none."""
    return lambda body, number: faults[number] if number < len(faults) else ""
