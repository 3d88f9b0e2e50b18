"""Send one request to a chat endpoint, and classify its answer or failure."""

import asyncio
import json
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.request import getproxies, proxy_bypass

import httpx

from rollout.endpoint.reply import Reply, read_reply
from rollout.errors import EndpointRefused, InfrastructureError, PromptTooLong
from rollout.runtime.http import http_client

log = logging.getLogger(__name__)

CONNECT_SECONDS = 15.0
MAX_RETRY_AFTER_SECONDS = 300.0  # the longest pause that is respected; longer than the minute of a rate limit
SHOWN = 200  # characters of a response that an error shows
TRANSIENT = frozenset({408, 409, 425, 429})  # statuses worth a retry, besides those from 500 on
OVERLOADED = frozenset({408, 429, 503, 504, 524, 529})
BILLABLE = frozenset({504, 524})  # a proxy did not wait for the model, which may have continued
FILTERED = "content_filter"  # the error code of a filtered prompt, with status 400
DISOBEYED = "json_validate_failed"  # Groq's error code of an answer that does not fit the schema, with status 400
# Also sent with status 429. The text "You exceeded your current quota" is no sign: some servers use it for rate limits.
NO_CREDIT = "insufficient_quota"
KEY = re.compile(r"[!-~]+")
TOO_LONG = re.compile(
    r"context_length_exceeded|context (length|window|size)|maximum context|max_model_len|(prompt|input) is too long",
    re.IGNORECASE,
)
UNKNOWN_FIELD = "extra_forbidden"  # the error of a server that validates requests with pydantic
REFUSABLE = ("max_tokens", "temperature", "seed")  # fields that reasoning models, such as OpenAI's, refuse
CONSTRAINTS = ("structured_outputs", "response_format")  # fields that many endpoints do not take, or only in part
UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.WriteError, httpx.WriteTimeout)


class Transient(Exception):
    """A failure after which a retry may succeed.

    Attributes:
        retry_after: The pause that the server requests, in seconds.
        may_be_billed: Whether the server may have generated an answer anyway.
        is_overload: Whether fewer concurrent requests would have avoided it.
    """

    def __init__(
        self, reason: str, *, retry_after: float = 0.0, may_be_billed: bool = False, is_overload: bool = False
    ) -> None:
        super().__init__(reason)
        self.retry_after, self.may_be_billed, self.is_overload = retry_after, may_be_billed, is_overload


class Filtered(Exception):
    """Raised if the server's content filter refuses a prompt, which no retry can change."""


class Transport:
    """The connections to one endpoint, kept open between requests."""

    def __init__(
        self, base_url: str, setting: Callable[[str], str], key_variable: str, seconds: float, num_connections: int
    ) -> None:
        """Check the settings; the first request opens a connection.

        Args:
            base_url: The address, up to and including `/v1`.
            setting: A function that returns how the user states a setting, such as `model`, for errors.
            key_variable: The environment variable that holds the key, `` for none.
            seconds: The time limit of one request, from connecting to the last byte.
            num_connections: The number of open connections.

        Raises:
            ValueError: If the address is not a URL, the key is missing, or the environment's proxy cannot be used.
        """
        if not base_url.startswith(("http://", "https://")) or not _is_address(base_url):
            raise ValueError(
                f"{setting('base_url')}={base_url} is no address; expected one such as http://HOST:8000/v1"
            )
        self._key = os.environ.get(key_variable, "").strip() if key_variable else ""
        if key_variable and not self._key:
            raise ValueError(
                f"the endpoint {base_url} needs a key: environment variable {key_variable} is empty; "
                "set it, or choose another variable"
            )
        if self._key and not KEY.fullmatch(self._key):
            raise ValueError(
                f"environment variable {key_variable} holds no key: expected printable ASCII without spaces or line "
                "breaks; set it to the key alone"
            )
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._setting, self._key_variable = setting, key_variable
        self._seconds = seconds
        self._refused: set[str] = set()  # fields of a request that the model refuses
        limits = httpx.Limits(max_connections=num_connections)
        timeout = httpx.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds))
        self._client = http_client(self._url, timeout=timeout, limits=limits)

    async def send(self, body: Mapping[str, Any]) -> Reply:
        """Return the answer to one chat completion.

        Fields in `REFUSABLE` that the model refuses are omitted from then on, and `max_tokens` becomes
        `max_completion_tokens`.

        Raises:
            Transient: If another attempt may succeed.
            Filtered: If a content filter refuses the prompt.
            PromptTooLong: If prompt and answer do not fit the model's context.
            EndpointRefused: If the user must change something.
        """
        while True:
            accepted = {key: value for key, value in body.items() if key not in self._refused}
            if "max_tokens" in self._refused:
                accepted["max_completion_tokens"] = body["max_tokens"]
            response = await self._post(accepted)
            if response.status_code == httpx.codes.OK:
                return self._read(response)
            refused, code = refused_field(response)
            if code == FILTERED:
                raise Filtered(f"the prompt is refused by a filter: {self._shown(response)}")
            if code == DISOBEYED:
                raise Transient(f"status {response.status_code}: {self._shown(response)}", may_be_billed=True)
            if refused not in accepted or not code.startswith("unsupported"):
                raise self._failure(response, accepted)
            if refused not in self._refused:
                log.warning("%s: %s; it is not sent any more", self._url, self._shown(response))
                self._refused.add(refused)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _post(self, body: Mapping[str, Any]) -> httpx.Response:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            # httpx's own time limits apply to each read, so a server that sends a byte now and then would never end.
            async with asyncio.timeout(self._seconds):
                return await self._client.post(self._url, content=json.dumps(body).encode(), headers=headers)
        except TimeoutError:
            raise Transient(f"no answer within {self._seconds:g} s", may_be_billed=True, is_overload=True) from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            reason = self._without_key(f"{type(error).__name__} {error}".strip())
            raise Transient(reason, may_be_billed=not isinstance(error, UNSENT)) from None

    def _read(self, response: httpx.Response) -> Reply:
        try:
            return read_reply(response.json())
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            # A proxy's page, half an answer, or an error message: with status 200, an answer may have been billed.
            raise Transient(f"no chat completion, but {self._shown(response)}", may_be_billed=True) from None

    def _failure(self, response: httpx.Response, body: Mapping[str, Any]) -> Exception:
        """Return the exception for a response to `body` whose status is not 200."""
        status, shown = response.status_code, self._shown(response)
        unconstrained = self._unconstrained(body)
        no_credit = status == httpx.codes.PAYMENT_REQUIRED or NO_CREDIT in response.text
        if (status in TRANSIENT or status >= 500) and not no_credit:
            pause = retry_after(response.headers.get("Retry-After"))
            if status >= 500 and unconstrained:
                shown = f"{shown}; {unconstrained}"
            return Transient(
                f"status {status}: {shown}",
                retry_after=pause,
                may_be_billed=status in BILLABLE,
                is_overload=status in OVERLOADED,
            )
        if status in (400, 413, 422) and (status == 413 or TOO_LONG.search(response.text)):
            return PromptTooLong(f"{self._url} answered status {status}: {shown}")
        if no_credit:
            remedy = "the account has no credit left; pay or raise its limit, and run the same command to continue"
        elif status in (401, 403):
            remedy = (
                f"check the key in the environment variable {self._key_variable}, and its permissions"
                if self._key
                else f"it needs a key; set {self._setting('api_key_env')} to the environment variable that holds it"
            )
        elif status == 404 or 300 <= status < 400:
            remedy = f"check {self._setting('base_url')}, which ends with /v1, and {self._setting('model')}"
        else:
            remedy = f"check {self._setting('model')} and {self._setting('max_response_tokens')}"
            remedy = f"{unconstrained}; else {remedy}" if unconstrained else remedy
        return EndpointRefused(f"{self._url} answered status {status}: {shown}; {remedy}")

    def _unconstrained(self, body: Mapping[str, Any]) -> str:
        """Return the remedy if a server does not take the constraint of a request, `` if the request has none."""
        field = next((field for field in CONSTRAINTS if field in body), None)
        if field is None:
            return ""
        return (
            f"if it does not take the field {field}, set {self._setting('structured_outputs')} to another kind or to "
            "none"
        )

    def _shown(self, response: httpx.Response) -> str:
        """Return the beginning of a response on one line, without the key, which some servers repeat."""
        text = self._without_key(" ".join(response.text[: 10 * SHOWN].split()))
        return text[:SHOWN] or "nothing"

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "(the key)") if self._key else text


def _is_address(url: str) -> bool:
    try:
        address = httpx.URL(url)
        return bool(address.host) and 0 < (address.port or 80) < 65536
    except httpx.InvalidURL:
        return False


def refused_field(response: httpx.Response) -> tuple[str, str]:
    """Return the field in `REFUSABLE` that an error is about, and the error's code; each `` if there is none."""
    if response.status_code == 422 and UNKNOWN_FIELD in response.text:
        unknown = next((field for field in REFUSABLE if re.search(rf'"body",\s*"{field}"', response.text)), "")
        return unknown, "unsupported"
    try:
        error = response.json()["error"]
        field, code = error.get("param"), error.get("code")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return "", ""
    return field if field in REFUSABLE else "", code if isinstance(code, str) else ""


def retry_after(header: str | None) -> float:
    """Return the seconds of a Retry-After header, given as a number or a date; 0 if it is missing or neither."""
    if header is None:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS) if seconds == seconds else 0.0


def require_listening(base_url: str, kind: type[InfrastructureError]) -> None:
    """Raise an error of `kind` if nothing accepts connections at the address of an endpoint.

    Requests are repeated for minutes, since a server may come back; one that was never there should cost no minutes.
    Behind a proxy nothing is checked.
    """
    url = httpx.URL(base_url)
    if getproxies() and not proxy_bypass(url.host):
        return
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        socket.create_connection((url.host, port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise kind(
            f"nothing answers at {base_url} ({error.strerror or error}); check the address, and start it"
        ) from None
