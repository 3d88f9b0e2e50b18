"""JSON over HTTP to the policy server, whose address may change."""

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
import tenacity

from rollout.errors import ServerError
from rollout.inference.access import authorization
from rollout.runtime.http import http_client, proxy_hint

CONNECT_SECONDS = 10.0

# Retries only if no connection was made, so that no request is executed twice.
_RETRYING = tenacity.AsyncRetrying(
    retry=tenacity.retry_if_exception_type((httpx.ConnectError, httpx.ConnectTimeout)),
    stop=tenacity.stop_after_delay(CONNECT_SECONDS),
    wait=tenacity.wait_exponential(0.1, max=2.0),
    reraise=True,
)


class Connection:
    """Requests to one server, whose address may change between them."""

    def __init__(self, address: str, request_seconds: float, key: str = ""):
        """Create a connection without contacting the server.

        Args:
            address: The server's address, such as http://127.0.0.1:8000.
            request_seconds: The time limit of one request.
            key: The server's key; empty if it has none.

        Raises:
            ValueError: If the address is on another machine, and the environment's proxy cannot be used.
        """
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._http = http_client(
            address,
            headers=authorization(key),
            timeout=httpx.Timeout(request_seconds, connect=CONNECT_SECONDS),
            # One connection per request, because the server may close an idle connection just as it is used again.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )
        self.move(address)

    def move(self, address: str) -> None:
        """Send all further requests to another address of the same machine."""
        self.address = address.rstrip("/")
        self._http.base_url = self.address

    async def ping(self) -> None:
        """Check once that the server answers. Raises httpx's errors."""
        await self._http.get("/health", timeout=CONNECT_SECONDS)

    async def get(self, path: str) -> Mapping[str, Any]:
        """Return the JSON response. Raises ServerError if there is none or its status is not 200."""
        return (await self._request("GET", path)).json()

    async def text(self, path: str, body: Mapping[str, Any] | None = None) -> str:
        """Return the response to a GET, or with a body to a POST, as text.

        Raises:
            ServerError: If there is none or its status is not 200.
        """
        return (await self._request("GET" if body is None else "POST", path, body)).text

    async def post(
        self, path: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> Mapping[str, Any]:
        """Return the JSON response. Raises ServerError if there is none or its status is not 200."""
        return (await self._request("POST", path, body, headers)).json()

    async def idle(self) -> None:
        """Wait until no request is in flight, including requests that start during the wait."""
        await self._idle.wait()

    async def close(self) -> None:
        """Close the connections; the server keeps running."""
        await self._http.aclose()

    async def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        self._in_flight += 1
        self._idle.clear()
        try:
            response = await _RETRYING(self._http.request, method, path, json=body, headers=headers)
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            hint = proxy_hint(self.address)
            raise ServerError(f"{method} {path} got no answer from {self.address} ({reason}){hint}") from None
        finally:
            self._in_flight -= 1
            if self._in_flight == 0:
                self._idle.set()
        if response.status_code != httpx.codes.OK:
            raise ServerError(f"{method} {path} was answered {response.status_code}: {response.text[:500]}")
        return response
