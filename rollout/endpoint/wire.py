"""One request to a chat endpoint, and what an answer, or none, means."""

import asyncio
import json
import logging
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from rollout.errors import EndpointRefused, PromptTooLong
from rollout.storage.utf8 import replace_unstorable

log = logging.getLogger(__name__)

CONNECT_SECONDS = 15.0
MAX_RETRY_AFTER_SECONDS = 300.0  # longer than a server's minute; who says more is asked again all the same
SHOWN = 200  # characters of a server's words in an error
PASSING = frozenset({408, 409, 425, 429})  # with all from 500 on: statuses that another attempt may cure
MAYBE_PAID = frozenset({504, 524})  # a proxy did not wait for the model, which may have gone on
FILTERED = "content_filter"  # said of a prompt, with status 400
# Said with a 429, too. "You exceeded your current quota" will not do: some say it of a limit that passes in a minute.
NO_CREDIT = "insufficient_quota"
KEY = re.compile(r"[!-~]+")
TOO_LONG = re.compile(
    r"context_length_exceeded|context (length|window|size)|maximum context|max_model_len|(prompt|input) is too long",
    re.IGNORECASE,
)
UNKNOWN_FIELD = "extra_forbidden"  # what a server says that checks its requests by pydantic
REFUSABLE = ("max_tokens", "temperature", "seed")  # by models that reason, OpenAI's own for one
UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.WriteError, httpx.WriteTimeout)


class Transient(Exception):
    """A failure that trying again may cure.

    Attributes:
        retry_after: seconds that the server wants to be left alone.
        maybe_paid: whether the server may have written an answer all the same.
    """

    def __init__(self, reason: str, *, retry_after: float = 0.0, maybe_paid: bool = False) -> None:
        super().__init__(reason)
        self.retry_after, self.maybe_paid = retry_after, maybe_paid


class Filtered(Exception):
    """A prompt that the server will never answer."""


@dataclass(frozen=True)
class Reply:
    """What a server answered.

    Attributes:
        text: the answer; of a refusal, its words; `` where there is none.
        end: the server's reason to end, such as `stop` or `length` (cut at the limit); `refusal` is ours.
        usage: what the server says of tokens, whatever that is.
    """

    text: str
    end: str
    usage: object


class Wire:
    """The connections to one endpoint, kept open between requests."""

    def __init__(self, base_url: str, settings: str, key_variable: str, seconds: float, num_connections: int) -> None:
        """Take what a request needs; nothing is opened before the first one.

        Args:
            base_url: up to and with `/v1`.
            settings: section of the configuration that errors name, such as `expert`.
            key_variable: environment variable with the key, `` for none.
            seconds: of one request, from the connection to the last byte.
            num_connections: open at one time.

        Raises:
            ValueError: where the address is none, or the key is missing.
        """
        if not base_url.startswith(("http://", "https://")) or not _is_address(base_url):
            raise ValueError(f"{settings}.base_url={base_url} is no address; expected one such as http://HOST:8000/v1")
        self._key = os.environ.get(key_variable, "").strip() if key_variable else ""
        if key_variable and not self._key:
            raise ValueError(
                f"the endpoint {base_url} needs a key: environment variable {key_variable} is empty; "
                "set it, or name another in the configuration"
            )
        if self._key and not KEY.fullmatch(self._key):
            raise ValueError(
                f"environment variable {key_variable} holds no key: expected printable ASCII without blanks or line "
                "breaks; set it to the key alone"
            )
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._settings, self._key_variable = settings, key_variable
        self._seconds, self._num_connections = seconds, num_connections
        self._refused: set[str] = set()  # fields
        self._client: httpx.AsyncClient | None = None

    async def send(self, body: Mapping[str, Any]) -> Reply:
        """Return the answer to one chat completion.

        What the model refuses of `REFUSABLE` is left out from then on; the limit goes by its other name.

        Raises:
            Transient: where another attempt may bring one.
            Filtered: where none will.
            PromptTooLong: where prompt and answer do not fit the model's context.
            EndpointRefused: where the user must put something right.
        """
        while True:
            taken = {key: value for key, value in body.items() if key not in self._refused}
            if "max_tokens" in self._refused:
                taken["max_completion_tokens"] = body["max_tokens"]
            response = await self._post(taken)
            if response.status_code == httpx.codes.OK:
                return self._read(response)
            refused, code = complaint(response)
            if code == FILTERED:
                raise Filtered(f"the prompt is refused by a filter: {self._shown(response)}")
            if refused not in taken or not code.startswith("unsupported"):
                raise self._failure(response)
            if refused not in self._refused:
                log.warning("%s: %s; it is not sent any more", self._url, self._shown(response))
                self._refused.add(refused)

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _post(self, body: Mapping[str, Any]) -> httpx.Response:
        if self._client is None:
            limits = httpx.Limits(max_connections=self._num_connections)
            timeout = httpx.Timeout(self._seconds, connect=min(CONNECT_SECONDS, self._seconds))
            self._client = httpx.AsyncClient(timeout=timeout, limits=limits)
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            # httpx's own limits are for each read: a server that sends a byte now and then would never end.
            async with asyncio.timeout(self._seconds):
                return await self._client.post(self._url, content=json.dumps(body).encode(), headers=headers)
        except TimeoutError:
            raise Transient(f"no answer within {self._seconds:g} s", maybe_paid=True) from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            reason = self._without_key(f"{type(error).__name__} {error}".strip())
            raise Transient(reason, maybe_paid=not isinstance(error, UNSENT)) from None

    def _read(self, response: httpx.Response) -> Reply:
        try:
            reply = response.json()
            choice = reply["choices"][0]
            message = choice["message"]
            text, refusal = message.get("content"), message.get("refusal")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            # A proxy's page, half an answer, or the server's apology: with status 200 it may have been paid for.
            raise Transient(f"no chat completion, but {self._shown(response)}", maybe_paid=True) from None
        end = choice.get("finish_reason")
        if not text and isinstance(refusal, str) and refusal:
            return Reply(replace_unstorable(refusal), "refusal", reply.get("usage"))
        text = text if isinstance(text, str) else ""
        return Reply(
            replace_unstorable(text), replace_unstorable(end) if isinstance(end, str) else "unknown", reply.get("usage")
        )

    def _failure(self, response: httpx.Response) -> Exception:
        """Return what an answer with another status than 200 is raised as."""
        status, said = response.status_code, self._shown(response)
        no_credit = status == httpx.codes.PAYMENT_REQUIRED or NO_CREDIT in response.text
        if (status in PASSING or status >= 500) and not no_credit:
            pause = retry_after(response.headers.get("Retry-After"))
            return Transient(f"status {status}: {said}", retry_after=pause, maybe_paid=status in MAYBE_PAID)
        if status in (400, 413, 422) and (status == 413 or TOO_LONG.search(response.text)):
            return PromptTooLong(f"{self._url} answered status {status}: {said}")
        if no_credit:
            remedy = "the account has no credit left; pay or raise its limit, and run the same command to go on"
        elif status in (401, 403):
            remedy = (
                f"check the key in the environment variable {self._key_variable}, and what it may use"
                if self._key
                else f"it wants a key; name its environment variable by {self._settings}.api_key_env"
            )
        elif status == 404 or 300 <= status < 400:
            remedy = f"check {self._settings}.base_url, which ends with /v1, and {self._settings}.model"
        else:
            remedy = f"check {self._settings}.model and {self._settings}.max_response_tokens"
        return EndpointRefused(f"{self._url} answered status {status}: {said}; {remedy}")

    def _shown(self, response: httpx.Response) -> str:
        """Return the beginning of what a server said, on one line; some repeat the key they were given."""
        words = self._without_key(" ".join(response.text[: 10 * SHOWN].split()))
        return words[:SHOWN] or "nothing"

    def _without_key(self, words: str) -> str:
        return words.replace(self._key, "(the key)") if self._key else words


def _is_address(url: str) -> bool:
    try:
        address = httpx.URL(url)
        return bool(address.host) and 0 < (address.port or 80) < 65536
    except httpx.InvalidURL:
        return False


def complaint(response: httpx.Response) -> tuple[str, str]:
    """Return the field of `REFUSABLE` that a server complains of, and the code of its error; each `` without one."""
    if response.status_code == 422 and UNKNOWN_FIELD in response.text:
        found = next((field for field in REFUSABLE if re.search(rf'"body",\s*"{field}"', response.text)), "")
        return found, "unsupported"
    try:
        error = response.json()["error"]
        field, code = error.get("param"), error.get("code")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return "", ""
    return field if field in REFUSABLE else "", code if isinstance(code, str) else ""


def retry_after(header: str | None) -> float:
    """Return the seconds of a Retry-After header, given as a number or a date; 0 where it is missing or neither."""
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
