"""Check the key of every request to vLLM's server, and describe the server.

vLLM imports this module by name (`--middleware`) in the process of its API server and puts it around all its endpoints.
vLLM's own `--api-key` leaves those open that load weights, call workers, pause, and reset caches.
"""

import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from rollout.inference.access import KEY_VARIABLE, key_in
from rollout.inference.description import PATH, ServerDescription

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/health", "/version")  # they change nothing and show nothing of the model
REFUSED = "the request has no key, or another one than the server; send it as Authorization: Bearer KEY"


class Gateway:
    """ASGI middleware that lets only requests with the key through; without a key in the environment, all."""

    def __init__(self, app: App) -> None:
        key = key_in(KEY_VARIABLE)
        self._app, self._digest = app, _digest(f"Bearer {key}") if key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or refuse a request, or pass it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif not self._is_allowed(scope):
            if scope["type"] == "http":
                await answer(send, 401, {"error": REFUSED})
            else:
                await send({"type": "websocket.close", "code": 1008, "reason": REFUSED})
        elif scope["type"] == "http" and scope["path"] == PATH:
            await answer(send, 200, self._describe(scope))
        else:
            await self._app(scope, receive, send)

    def _is_allowed(self, scope: Scope) -> bool:
        if self._digest is None:
            return True
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and scope["path"] in OPEN:
            return True
        given = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(_digest(given[0].decode("latin-1")), self._digest)

    def _describe(self, scope: Scope) -> Mapping[str, Any]:
        description = ServerDescription.of_running(scope["app"].state.vllm_config).to_json()
        return description if self._digest else {**description, "weight_backend": None}


async def answer(send: Send, status: int, body: Mapping[str, Any]) -> None:
    """Send a whole JSON response."""
    content = json.dumps(body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
