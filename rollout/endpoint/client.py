"""A chat model behind an OpenAI-compatible endpoint, used by the coder, the expert and the idea library."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from rollout.endpoint.concurrency import MOST, ConcurrencyWindow
from rollout.endpoint.empty_answers import EmptyAnswers
from rollout.endpoint.exchanges import Exchanges
from rollout.endpoint.rate_limit import Gate
from rollout.endpoint.reply import Reply, visible_text
from rollout.endpoint.spending import Budget, Spending
from rollout.endpoint.transport import Filtered, Transient, Transport
from rollout.endpoint.usage import TokenCounter, Usage, most_tokens
from rollout.errors import InfrastructureError
from rollout.storage.blob_store import digest_of
from tasks.prompt import Message
from tasks.quoting import replace_unstorable

FIRST_WAIT_SECONDS = 1.0
EMPTY = "(nothing)"  # replaces an empty message, such as an earlier empty answer, because some endpoints refuse those

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """A model's answer.

    Attributes:
        text: The text, `` if there is none.
        end: The server's reason for the end of the answer.
    """

    text: str
    end: str

    @property
    def visible_text(self) -> str:
        """The text without the reasoning in `<think>` tags."""
        return visible_text(self.text)

    @property
    def is_cut(self) -> bool:
        """Whether the token limit cut the answer off."""
        return self.end == "length"


@dataclass
class _Call:
    """One request and its attempts."""

    key: str
    body: Mapping[str, Any]
    prompt: str
    expected: int  # estimated tokens, with an answer of the maximum length
    most: Usage
    started: float
    attempts: int = 0
    unrecorded: int = 0  # attempts that are not yet counted in the journal


@dataclass
class ChatEndpoint:
    """One model of one endpoint; all its requests share connections, limits, a budget and a journal.

    An instance belongs to one event loop. Call `close`, or use it in `async with`.

    Attributes:
        base_url: The address, up to and including `/v1`.
        model: The model's name at the endpoint.
        error: The exception type for failures, which depends on the use of the endpoint.
        api_key_variable: The environment variable that holds the key, `` if the endpoint needs none.
        timeout_seconds: The time limit of one attempt.
        num_attempts: The number of attempts before a transient failure is raised.
        max_wait_seconds: The longest pause between two attempts; pauses grow exponentially, with jitter. A pause that
            the server requests with Retry-After is added, and applies to all requests.
        name: What it is used as, named in errors.
        setting: A function that returns how the user states a setting, such as `model`, named in errors; None for
            `name.model` and the like, as in a run's configuration.
        max_concurrent: The largest number of concurrent requests; see `ConcurrencyWindow`.
        max_response_tokens: The length limit of an answer in tokens.
        max_empty_share: The largest share of answers without text among the last ones.
        requests_per_minute: The number of attempts allowed in any minute; None for no limit.
        tokens_per_minute: The number of tokens allowed in any minute; None for no limit. An answer counts with its
            maximum length until it arrives.
        budget: The limits on all requests together.
        exchanges: The journal, which answers repeated requests and records new ones.
        minute: The length of the "minute" of the rate limits, in seconds.
    """

    base_url: str
    model: str
    error: type[InfrastructureError]
    api_key_variable: str = ""
    timeout_seconds: float = 120.0
    num_attempts: int = 8
    max_wait_seconds: float = 60.0
    name: str = "expert"
    max_concurrent: int = MOST
    max_response_tokens: int = 4096
    max_empty_share: float = 0.5
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    budget: Budget = field(default_factory=Budget)
    exchanges: Exchanges = field(default_factory=lambda: Exchanges(None))
    minute: float = 60.0
    setting: Callable[[str], str] | None = None

    def __post_init__(self) -> None:
        setting = self.setting or (lambda key: f"{self.name}.{key}")
        self._transport = Transport(
            self.base_url, setting, self.api_key_variable, self.timeout_seconds, self.max_concurrent
        )
        self._window = ConcurrencyWindow(self.max_concurrent)
        self._gate = Gate(self.requests_per_minute, self.tokens_per_minute, self.minute)
        self._spending = Spending(self.budget, self.exchanges.totals, setting)
        self._counter = TokenCounter()
        self._empty = EmptyAnswers(self.base_url, self.name, setting, self.max_empty_share, self.max_response_tokens)
        self._under_way: dict[str, asyncio.Task[Answer]] = {}
        self._sending: set[str] = set()
        self._num_replayed = 0
        self._warned_of_usage = self._closing = False

    async def complete(self, messages: Sequence[Message], *, seed: int, temperature: float = 1.0) -> str:
        """Return the model's answer to `messages` as text without its reasoning; see `ask`."""
        return (await self.ask(messages, seed=seed, temperature=temperature)).visible_text

    async def ask(
        self,
        messages: Sequence[Message],
        *,
        seed: int,
        temperature: float = 1.0,
        fields: Mapping[str, Any] = MappingProxyType({}),
    ) -> Answer:
        """Return the model's answer to `messages`, from the journal if the same request was answered before.

        Rate limits (429), server errors, timeouts, lost connections and broken answers are retried. Equal concurrent
        requests are sent once. If a caller is canceled, its request continues, because it is paid for and must be
        recorded.

        Args:
            messages: The chat so far.
            seed: The seed of the model's sampling; part of the request's identity.
            temperature: The sampling temperature.
            fields: Further fields of the request, which constrain the answer.

        Raises:
            InfrastructureError: If no answer came, as the endpoint's `error` type.
            PromptTooLong: If messages and answer do not fit the model's context.
            BudgetSpent: If the answer may exceed the remaining budget.
            EndpointRefused: If the user must change something, as when too many of the last answers have no text.
        """
        assert not self._closing, "closed"
        body = {
            "model": self.model,
            "messages": [
                {"role": message["role"], "content": replace_unstorable(message["content"]) or EMPTY}
                for message in messages
            ],
            "temperature": temperature,
            "max_tokens": self.max_response_tokens,
            "seed": seed,
            **fields,
        }
        key = digest_of(json.dumps(body, sort_keys=True).encode())
        record = self.exchanges.find(key)
        # An answer without text is asked for again, because only the server's setup, not the request, can change it.
        if record is not None and (answer := Answer(record["answer"], record["end"])).visible_text:
            self._num_replayed += 1
            return answer
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.create_task(self._request(key, body))
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        else:
            self._num_replayed += 1
        return await asyncio.shield(task)

    def figures(self) -> dict[str, Any]:
        """Return the totals of all recorded exchanges, including those of earlier processes.

        Only `replayed` counts this process alone: answers that cost nothing, because the request was in the journal or
        in flight.
        """
        totals, usage = self.exchanges.totals, self.exchanges.totals.usage
        return {
            "answers": totals.answers,
            "requests": totals.requests,
            "retries": totals.requests - totals.answers,
            "replayed": self._num_replayed,
            "input_tokens": usage.input,
            "cached_tokens": usage.cached,
            "output_tokens": usage.output,
            "dollars": round(self._spending.dollars(), 6),
            "estimated": totals.estimated,
            "cut": totals.ends.get("length", 0),
            "refused": totals.ends.get("refusal", 0) + totals.ends.get("content_filter", 0),
            "empty": totals.empty,
        }

    async def close(self, seconds: float | None = None) -> None:
        """Close the endpoint: wait for sent requests and record them, and drop requests that were not sent.

        Args:
            seconds: The time limit of the wait; None for that of a request.
        """
        self._closing = True
        for key, task in self._under_way.items():
            if key not in self._sending:
                task.cancel()
        tasks = list(self._under_way.values())
        if tasks:
            await asyncio.wait(tasks, timeout=self.timeout_seconds if seconds is None else seconds)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await self._transport.close()
        self.exchanges.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    def _forget(self, key: str, task: asyncio.Task[Answer]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # retrieve it, because asyncio warns if all callers were canceled

    async def _request(self, key: str, body: dict[str, Any]) -> Answer:
        """Send a request, with retries, and return the answer."""
        prompt = "\n".join(f"{message['role']}\n{message['content']}" for message in body["messages"])
        most = Usage(most_tokens([message["content"] for message in body["messages"]]), 0, body["max_tokens"], True)
        call = _Call(key, body, prompt, self._counter.estimate(prompt) + most.output, most, time.monotonic())
        attempts = AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, Transient) and not self._closing),
            stop=stop_after_attempt(self.num_attempts),
            wait=wait_exponential_jitter(FIRST_WAIT_SECONDS, self.max_wait_seconds, jitter=FIRST_WAIT_SECONDS),
            before_sleep=self._log_retry,
            reraise=True,
        )
        try:
            async for attempt in attempts:
                with attempt:
                    async with self._spending.room_for(most), self._window.request():
                        return await self._send(call)
        except Filtered as error:
            raise self.error(f"{self.base_url}: {error}") from None
        except Transient as error:
            raise self.error(
                f"{self.base_url} gave no answer in {call.attempts} attempts: {error}; is it up?"
            ) from None
        raise AssertionError("AsyncRetrying ends by a return or a raise")

    async def _send(self, call: _Call) -> Answer:
        """Make one attempt, as soon as Retry-After and the rate limits allow it."""
        share = await self._gate.enter(call.expected)
        call.attempts += 1
        call.unrecorded += 1
        self._sending.add(call.key)
        tokens = self._counter.estimate(call.prompt)  # unless an answer reports the true number
        try:
            reply = await self._transport.send(call.body)
            tokens = self._record(call, reply).tokens
            self._empty.add(reply)
            return Answer(reply.text, reply.end)
        except Transient as error:
            self._gate.close_for(error.retry_after)
            if error.may_be_billed:
                self._record(call, None)
            raise
        except asyncio.CancelledError:
            self._record(call, None)
            raise
        finally:
            self._sending.discard(call.key)
            self._gate.correct(share, tokens)

    def _record(self, call: _Call, reply: Reply | None) -> Usage:
        """Record an answer and return its usage; a lost answer counts with its maximum length."""
        usage = call.most
        if reply is not None:
            usage = self._counter.read(call.prompt, reply.text, reply.usage, call.body["max_tokens"])
        if reply is not None and usage.estimated and not self._warned_of_usage:
            self._warned_of_usage = True
            log.warning(
                "%s reports the token usage %.200r, which cannot be right; it is estimated, and estimates are counted",
                *(self.base_url, reply.usage),
            )
        counts = {
            "answered": reply is not None,
            "end": "" if reply is None else reply.end,
            "empty": int(reply is not None and reply.is_empty),
            "attempts": call.unrecorded,
            "input": usage.input,
            "cached": usage.cached,
            "output": usage.output,
            "estimated": int(usage.estimated),
            "seconds": round(time.monotonic() - call.started, 3),
        }
        call.unrecorded = 0
        text, reported = (None, None) if reply is None else (reply.text, reply.usage)
        self.exchanges.add(call.key, counts, {"request": call.body, "answer": text, "usage": reported})
        return usage

    def _log_retry(self, state: RetryCallState) -> None:
        assert state.outcome is not None, "called after a failed attempt"
        log.debug("%s, attempt %d: %s", self.base_url, state.attempt_number, state.outcome.exception())
