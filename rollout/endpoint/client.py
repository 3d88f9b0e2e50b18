"""A chat model behind any OpenAI-compatible endpoint, for the coder, the expert and ideas."""

import asyncio
import json
import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from rollout.endpoint.exchanges import Exchanges
from rollout.endpoint.rate import Gate
from rollout.endpoint.spending import Budget, Spending
from rollout.endpoint.usage import TokenCounter, Usage, most_tokens
from rollout.endpoint.wire import Filtered, Reply, Transient, Wire
from rollout.errors import InfrastructureError
from rollout.storage.blob_store import digest_of
from rollout.storage.utf8 import replace_unstorable
from tasks.prompt import Message

FIRST_WAIT_SECONDS = 1.0
EMPTY = "(nothing)"  # some endpoints refuse messages without a letter, such as an earlier answer that was empty
# The opening mark may stand in the prompt, and an answer that is cut has no closing one.
THOUGHTS = re.compile(r"\A(?:.*?</think>|\s*<think>.*\Z)", re.DOTALL)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What a model answered: its text, `` for none, and why it ended there, as the server says."""

    text: str
    end: str

    @property
    def said(self) -> str:
        """The text without what a model that thinks aloud says to itself."""
        return THOUGHTS.sub("", self.text).strip()

    @property
    def is_cut(self) -> bool:
        """Whether the limit on its tokens cut it off."""
        return self.end == "length"


@dataclass
class _Call:
    """One request on its way to an answer, over as many attempts as it takes."""

    key: str
    body: Mapping[str, Any]
    prompt: str
    expected: int  # tokens, with an answer as long as it may be
    most: Usage
    began: float
    attempts: int = 0
    unrecorded: int = 0  # attempts that no line of the journal counts yet


@dataclass
class ChatEndpoint:
    """One model of one endpoint; all its requests share connections, limits, a budget and a journal.

    It belongs to one event loop. `close` it, or use it as an `async with`.

    Attributes:
        base_url: address up to and with `/v1`.
        model: the model's name there.
        error: what a failure is raised as, by the boundary it is used at.
        api_key_variable: environment variable that holds the key; `` for an endpoint without one.
        timeout_seconds: of one attempt at a request.
        num_attempts: attempts before a transient failure is given up on.
        max_wait_seconds: longest pause between two attempts; they grow exponentially, with jitter. What the server asks
            for by Retry-After comes on top, and holds for all requests.
        name: section of the configuration that errors name.
        max_concurrent: requests under way at one time.
        max_response_tokens: tokens of an answer at most.
        requests_per_minute: attempts in any minute; None: any number.
        tokens_per_minute: tokens in any minute; None: any number. An answer counts with all it may have, until it is
            there.
        budget: the most that all requests may take together.
        exchanges: what was asked before, and where it is written what is asked now.
        minute: seconds of what is called a minute above.
    """

    base_url: str
    model: str
    error: type[InfrastructureError]
    api_key_variable: str = ""
    timeout_seconds: float = 120.0
    num_attempts: int = 8
    max_wait_seconds: float = 60.0
    name: str = "expert"
    max_concurrent: int = 8
    max_response_tokens: int = 4096
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    budget: Budget = field(default_factory=Budget)
    exchanges: Exchanges = field(default_factory=lambda: Exchanges(None))
    minute: float = 60.0

    def __post_init__(self) -> None:
        self._wire = Wire(self.base_url, self.name, self.api_key_variable, self.timeout_seconds, self.max_concurrent)
        self._slots = asyncio.Semaphore(self.max_concurrent)
        self._gate = Gate(self.requests_per_minute, self.tokens_per_minute, self.minute)
        self._spending = Spending(self.budget, self.exchanges.totals, self.name)
        self._counter = TokenCounter()
        self._under_way: dict[str, asyncio.Task[Answer]] = {}
        self._sending: set[str] = set()
        self._num_replayed = 0
        self._said_estimated = self._closing = False

    async def complete(self, messages: Sequence[Message], *, seed: int, temperature: float = 1.0) -> str:
        """Return what the model says in answer to `messages`, without what it says to itself; see `ask`."""
        return (await self.ask(messages, seed=seed, temperature=temperature)).said

    async def ask(self, messages: Sequence[Message], *, seed: int, temperature: float = 1.0) -> Answer:
        """Return what the model answers to `messages`, from the journal where the same was asked before.

        Too many requests, server errors, timeouts, lost connections and broken answers are tried again. Requests that
        are equal and under way together are one. A caller that is cancelled leaves its request under way: it is paid
        for, and so recorded.

        Args:
            messages: the chat so far.
            seed: of the model's draws, part of what is asked.
            temperature: sampling temperature.

        Raises:
            InfrastructureError: as the endpoint's `error` type, when no answer came.
            PromptTooLong: where messages and answer do not fit the model's context.
            BudgetSpent: where the answer may cost more than the budget has left.
            EndpointRefused: where the user must put something right.
        """
        assert not self._closing, "closed"
        body = {
            "model": self.model,
            "messages": [
                {"role": one["role"], "content": replace_unstorable(one["content"]) or EMPTY} for one in messages
            ],
            "temperature": temperature,
            "max_tokens": self.max_response_tokens,
            "seed": seed,
        }
        key = digest_of(json.dumps(body, sort_keys=True).encode())
        record = self.exchanges.find(key)
        if record is not None:
            self._num_replayed += 1
            return Answer(record["answer"], record["end"])
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.create_task(self._pay_for(key, body))
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        else:
            self._num_replayed += 1
        return await asyncio.shield(task)

    def figures(self) -> dict[str, Any]:
        """Return what all recorded exchanges came to, those of earlier processes included.

        `replayed` alone is of this process: answers that cost nothing, as they were known or on their way.
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
        """Close the endpoint: what was sent is waited for and recorded, what was not yet sent is dropped.

        Args:
            seconds: how long to wait for what was sent; None: as long as a request may take.
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
        await self._wire.close()
        self.exchanges.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    def _forget(self, key: str, task: asyncio.Task[Answer]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # looked at, or asyncio complains where all who waited have gone

    async def _pay_for(self, key: str, body: dict[str, Any]) -> Answer:
        """Return the answer to a request that was never answered, in as many attempts as it takes."""
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
                    async with self._spending.room_for(most), self._slots:
                        return await self._send(call)
        except Filtered as error:
            raise self.error(f"{self.base_url}: {error}") from None
        except Transient as error:
            raise self.error(
                f"{self.base_url} gave no answer in {call.attempts} attempts: {error}; is it up?"
            ) from None
        raise AssertionError("AsyncRetrying ends by a return or a raise")

    async def _send(self, call: _Call) -> Answer:
        """Make one attempt, once the server's wishes and our limits allow it."""
        share = await self._gate.enter(call.expected)
        call.attempts += 1
        call.unrecorded += 1
        self._sending.add(call.key)
        tokens = self._counter.estimate(call.prompt)  # where no more is known
        try:
            reply = await self._wire.send(call.body)
            tokens = self._record(call, reply).tokens
            return Answer(reply.text, reply.end)
        except Transient as error:
            self._gate.close_for(error.retry_after)
            if error.maybe_paid:
                self._record(call, None)
            raise
        except asyncio.CancelledError:
            self._record(call, None)
            raise
        finally:
            self._sending.discard(call.key)
            self._gate.correct(share, tokens)

    def _record(self, call: _Call, reply: Reply | None) -> Usage:
        """Write down an answer and returns what it took; one that was lost counts as the longest there may be."""
        usage = call.most
        if reply is not None:
            usage = self._counter.read(call.prompt, reply.text, reply.usage, call.body["max_tokens"])
        if reply is not None and usage.estimated and not self._said_estimated:
            self._said_estimated = True
            log.warning(
                "%s says of its tokens %.200r, which cannot be right; they are estimated, and how often is counted",
                *(self.base_url, reply.usage),
            )
        counts = {
            "answered": reply is not None,
            "end": "" if reply is None else reply.end,
            "empty": int(reply is not None and not reply.text.strip()),
            "attempts": call.unrecorded,
            "input": usage.input,
            "cached": usage.cached,
            "output": usage.output,
            "estimated": int(usage.estimated),
            "seconds": round(time.monotonic() - call.began, 3),
        }
        call.unrecorded = 0
        text, told = (None, None) if reply is None else (reply.text, reply.usage)
        self.exchanges.add(call.key, counts, {"request": call.body, "answer": text, "usage": told})
        return usage

    def _log_retry(self, state: RetryCallState) -> None:
        assert state.outcome is not None, "an attempt has failed"
        log.debug("%s, attempt %d: %s", self.base_url, state.attempt_number, state.outcome.exception())
