"""JSON over HTTP to the policy server, wherever it is at the moment."""

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
import tenacity

from rollout.errors import ServerError

CONNECT_SECONDS = 10.0

# Only where no connection was made, so nothing is ever done twice.
_RETRYING = tenacity.AsyncRetrying(
    retry=tenacity.retry_if_exception_type((httpx.ConnectError, httpx.ConnectTimeout)),
    stop=tenacity.stop_after_delay(CONNECT_SECONDS),
    wait=tenacity.wait_exponential(0.1, max=2.0),
    reraise=True,
)


class Connection:
    """Requests to one server, which may move to another address between them."""

    def __init__(self, address: str, request_seconds: float):
        """Take an address such as http://127.0.0.1:8000, and how long a request may take."""
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(request_seconds, connect=CONNECT_SECONDS),
            # A connection for each request: one kept open may be closed by the server just as it is used again.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )
        self.move(address)

    def move(self, address: str) -> None:
        """Send the requests from now on to another address."""
        self.address = address.rstrip("/")
        self._http.base_url = self.address

    async def ping(self) -> None:
        """Ask for a sign of life, once. Raises what httpx raises."""
        await self._http.get("/health", timeout=CONNECT_SECONDS)

    async def get(self, path: str) -> Mapping[str, Any]:
        """Return the JSON answer. Raises ServerError where there is none or another status than 200."""
        return (await self._request("GET", path, None)).json()

    async def text(self, path: str) -> str:
        """Return the answer as it is. Raises ServerError where there is none or another status than 200."""
        return (await self._request("GET", path, None)).text

    async def post(self, path: str, body: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """Return the JSON answer. Raises ServerError where there is none or another status than 200."""
        return (await self._request("POST", path, body)).json()

    async def idle(self) -> None:
        """Return when no request is under way; those that begin meanwhile are waited for too."""
        await self._idle.wait()

    async def close(self) -> None:
        """Close the connections; the server goes on."""
        await self._http.aclose()

    async def _request(self, method: str, path: str, body: Mapping[str, Any] | None) -> httpx.Response:
        self._under_way += 1
        self._idle.clear()
        try:
            response = await _RETRYING(self._http.request, method, path, json=body)
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise ServerError(f"{method} {path} got no answer from {self.address} ({reason})") from None
        finally:
            self._under_way -= 1
            if self._under_way == 0:
                self._idle.set()
        if response.status_code != httpx.codes.OK:
            raise ServerError(f"{method} {path} was answered {response.status_code}: {response.text[:500]}")
        return response
