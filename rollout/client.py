"""The policy server's client: tokens in, tokens and log-probabilities out, new weights as one verb."""

import asyncio
import contextlib
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import tenacity
from prometheus_client.parser import text_string_to_metric_families

from rollout.errors import ServerError
from rollout.types import Completion
from rollout.weight_files import check_same_tensors, tensor_shapes, weight_files

INCOMPLETE = "incomplete"  # the version of weights that an update left unfinished
NOT_A_NUMBER = -9999.0  # vLLM's stand-in for a log-probability that JSON cannot carry
LOOKED_UP, FOUND = "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"  # vLLM's counters, in tokens
CONNECT_SECONDS = 10.0

# Only where no connection was made, so nothing is ever done twice.
_RETRYING = tenacity.AsyncRetrying(
    retry=tenacity.retry_if_exception_type((httpx.ConnectError, httpx.ConnectTimeout)),
    stop=tenacity.stop_after_delay(CONNECT_SECONDS),
    wait=tenacity.wait_exponential(0.1, max=2.0),
    reraise=True,
)


class PolicyClient:
    """A `rollout.types.Policy` behind a server that `rollout.server` started.

    Sampling is always from the whole distribution at one temperature: with top-p or top-k the sampler's
    log-probabilities would not be those of the policy that is trained.
    """

    def __init__(
        self,
        address: str,
        *,
        temperature: float,
        max_tokens: int,
        stop_ids: Sequence[int],
        request_seconds: float = 600.0,
    ):
        """Describes a client; `connect`, or entering the block, comes first.

        Args:
            address: such as http://127.0.0.1:8000.
            temperature: sampling temperature, > 0.
            max_tokens: longest response, end token included.
            stop_ids: tokens that end a response; they are part of it.
            request_seconds: how long one request may take, waiting in the server's queue included.
        """
        if temperature <= 0:
            raise ValueError(f"temperature={temperature} is not a sampling temperature; expected a number above 0")
        self.address = address.rstrip("/")
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.stop_ids = list(stop_ids)
        self.version = 0
        self._served_tensors: dict[str, tuple[int, ...]] = {}
        self._withdrawn: set[str] = set()  # versions that failed their proof
        self._files: list[Path] = []  # of the weights that serve, where they are known
        self._updating = asyncio.Lock()
        self._http = httpx.AsyncClient(
            base_url=self.address,
            timeout=httpx.Timeout(request_seconds, connect=CONNECT_SECONDS),
            # A connection for each request: one kept open may be closed by the server just as it is used again.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )

    async def connect(self) -> None:
        """Learns what the server serves and makes it ready for new weights.

        Raises:
            ValueError: where nothing answers at the address, or a server that cannot take new weights.
        """
        try:
            await self._http.get("/health", timeout=CONNECT_SECONDS)  # at once: waiting does not mend a wrong address
            models = await self._request("GET", "/v1/models", None)
            info = await self._request("GET", "/weight_info", None)
        except (httpx.TransportError, httpx.UnsupportedProtocol, ServerError) as error:
            raise ValueError(
                f"no policy server at {self.address}: {error}; start one with `python -m rollout.server --model DIR`"
            ) from None
        served = Path(models["data"][0]["root"])
        self._served_tensors = tensor_shapes(served) if served.is_dir() else {}
        await self._post("/init_weight_transfer_engine", {"init_info": {}})
        label = info["weight_version"]
        if label == "default":
            self._files = weight_files(served) if served.is_dir() else []
            await self._post("/update_weight_version", {"new_version": str(self.version)})
        elif label != INCOMPLETE:
            self.version = int(label)

    async def close(self) -> None:
        """Closes the connections; the server goes on."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        try:
            await self.connect()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def sample(self, prompt_ids: Sequence[int], *, num_samples: int, seed: int) -> list[Completion]:
        """Returns `num_samples` responses to one prompt, each with the version of the weights that wrote it.

        The same seed, prompt and weights give the same responses. A response that weights changed under carries the
        older version.

        Raises:
            ServerError: where the server does not answer, refuses, or has unfinished weights.
        """
        answer = await self._post(
            "/inference/v1/generate",
            {
                "token_ids": list(prompt_ids),
                "sampling_params": {
                    "n": num_samples,
                    # vLLM gives sample k the seed + k: far apart, so that neighbouring seeds do not share samples.
                    "seed": random.Random(f"{seed}/sample").getrandbits(48),
                    "temperature": self.temperature,
                    "top_p": 1.0,
                    "top_k": -1,
                    "max_tokens": self.max_tokens,
                    "stop_token_ids": self.stop_ids,
                    "logprobs": 0,
                    "detokenize": False,
                },
            },
        )
        async with self._updating:  # weights under way are proven, or withdrawn, before what they wrote is returned
            choices = sorted(answer["choices"], key=lambda choice: choice["index"])
            if any(span["version"] in self._withdrawn for choice in choices for span in choice["weight_versions"]):
                raise ServerError("a response was sampled from weights that failed their proof")
            return [_completion(choice) for choice in choices]

    async def score(self, token_ids: Sequence[int]) -> list[float]:
        """Returns the log-probability at temperature 1 of every token but the first, given those before it."""
        answer = await self._post(
            "/inference/v1/generate",
            {
                "token_ids": list(token_ids),
                "sampling_params": {"max_tokens": 1, "prompt_logprobs": 0, "detokenize": False},
            },
        )
        found = answer["prompt_logprobs"][1:]
        return [_finite(entry[str(token)]["logprob"]) for token, entry in zip(token_ids[1:], found, strict=True)]

    async def cache_use(self) -> "CacheUse":
        """Returns what the server's prefix cache has given to all that was sampled since the server started.

        To vLLM n samples of a prompt are n requests: each looks the whole prompt up, and all but the first find its
        full blocks, so samples alone give a share of up to (n - 1) / n. Requests that begin in one step find one
        another's blocks too, so their order changes nothing. Neither `score` nor what new weights have computed again
        is counted.

        Raises:
            ServerError: where the server does not answer.
        """
        counts = dict.fromkeys((LOOKED_UP, FOUND), 0.0)
        metrics = (await self._respond("GET", "/metrics", None)).text
        for sample in (sample for family in text_string_to_metric_families(metrics) for sample in family.samples):
            if sample.name in counts:  # of each engine, where there are several
                counts[sample.name] += sample.value
        return CacheUse(tokens=int(counts[LOOKED_UP]), hits=int(counts[FOUND]))

    async def update_weights(
        self, folder: Path, version: int, digests: Mapping[str, str] | None = None, canary: "Canary | None" = None
    ) -> None:
        """Makes the server sample from the weights of a checkpoint directory, as `version`.

        Requests in flight are frozen meanwhile and go on with the new weights; the prefix cache is emptied. Where this
        fails the weights before are put back, for which their files must still be there.

        Args:
            folder: on a disk that the server sees.
            version: what the responses carry from now on.
            digests: SHA-256 of each tensor, which the server compares with what it reads.
            canary: what the server must say of a prompt once it has the weights.

        Raises:
            ValueError: where tensors of `folder` are missing, unknown, or of another shape or kind; nothing was sent.
            ServerError: where the server failed at it; says which version it has now. Sampling raises until an update
                succeeds if the one before could not be put back.
        """
        files = self.check_weights(folder)
        async with self._updating:
            try:
                await self._replace(files, version, digests)
                if canary is not None:
                    await verify_weights(self, [(canary.token_ids, canary.logprobs)], canary.tolerance)
            except ServerError as error:
                self._withdrawn.add(str(version))
                raise ServerError(f"{error}; {await self._go_back()}") from None
            self._withdrawn.discard(str(version))
            self.version, self._files = version, files

    async def _go_back(self) -> str:
        """Puts the weights before back after a failed update; returns what the server has now, in words."""
        if self._files:
            with contextlib.suppress(ServerError):  # what led here says more
                await self._replace(self._files, self.version)
                return f"version {self.version} serves again"
        return f"version {self.version} could not be put back, so nothing can be sampled: start the server anew"

    def check_weights(self, folder: Path) -> list[Path]:
        """Returns the files of a checkpoint directory that can replace the served weights.

        vLLM itself answers 200 to a missing tensor, leaving part of a layer uninitialised, and dies of a wrong shape.

        Raises:
            ValueError: as `update_weights`.
        """
        if not self._served_tensors:
            raise ValueError(f"{self.address} serves a directory that this machine does not have; start it on this one")
        check_same_tensors(folder, self._served_tensors)
        return weight_files(folder)

    async def _replace(self, files: Sequence[Path], version: int, digests: Mapping[str, str] | None = None) -> None:
        """Loads the files while the server pauses, and empties its prefix cache."""
        try:
            await self._post("/pause?mode=keep")  # a step in the middle of an update would end the engine
            await self._load(files, version, digests or {})
        finally:
            await self._post("/resume")

    async def _load(self, files: Sequence[Path], version: int, digests: Mapping[str, str]) -> None:
        sent = {"paths": [str(file) for file in files], "digests": dict(digests)}
        try:
            await self._post("/start_weight_update")
            await self._post("/update_weights", {"update_info": sent})
            await self._post("/finish_weight_update", {"weight_version": str(version)})
            await self._empty_prefix_cache()
        except BaseException:
            await self._leave_runnable()
            raise

    async def _leave_runnable(self) -> None:
        """After a failed update: an empty one puts every layer back into a state that does not end the engine."""
        with contextlib.suppress(ServerError):  # the failed update may still be open
            await self._post("/start_weight_update")
        with contextlib.suppress(ServerError):  # the failure that led here says more
            await self._post("/finish_weight_update", {"weight_version": INCOMPLETE})
            await self._empty_prefix_cache()

    async def _empty_prefix_cache(self) -> None:
        """Forgets keys and values of the old weights, those of frozen requests too, which are computed again."""
        answer = await self._post("/reset_prefix_cache?reset_running_requests=true")
        if not answer["success"]:
            raise ServerError("the policy server did not empty its prefix cache, so it would mix old and new weights")

    async def _post(self, path: str, body: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        return await self._request("POST", path, body)

    async def _request(self, method: str, path: str, body: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Returns the JSON answer to one request."""
        return (await self._respond(method, path, body)).json()

    async def _respond(self, method: str, path: str, body: Mapping[str, Any] | None) -> httpx.Response:
        try:
            response = await _RETRYING(self._http.request, method, path, json=body)
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise ServerError(f"{method} {path} got no answer from {self.address} ({reason})") from None
        if response.status_code != httpx.codes.OK:
            raise ServerError(f"{method} {path} was answered {response.status_code}: {response.text[:500]}")
        return response


@dataclass(frozen=True)
class CacheUse:
    """How much of the prompts a server took from its prefix cache.

    Attributes:
        tokens: prompt tokens that were looked up; those of a prompt count once for each of its samples.
        hits: how many of them were there.
    """

    tokens: int
    hits: int


@dataclass(frozen=True)
class Canary:
    """A prompt by which weights are told apart.

    Attributes:
        token_ids: the prompt.
        logprobs: what the trainer gives each of its tokens but the first, at temperature 1.
        tolerance: how far the server may be off, in nats.
    """

    token_ids: Sequence[int]
    logprobs: Sequence[float]
    tolerance: float


async def verify_weights(
    client: PolicyClient, expected: Sequence[tuple[Sequence[int], Sequence[float]]], tolerance: float
) -> float:
    """Returns the largest difference between the server's log-probabilities and those the trainer computed.

    Args:
        client: connected to the server.
        expected: pairs of token ids and, for all but the first of them, log-probabilities at temperature 1.
        tolerance: largest difference allowed, in nats.

    Raises:
        ServerError: where one differs by more: the server does not have the weights that the trainer has.
    """
    scores = await asyncio.gather(*(client.score(token_ids) for token_ids, _ in expected))
    worst = 0.0
    for (_, logprobs), score in zip(expected, scores, strict=True):
        worst = max(worst, *(abs(ours - theirs) for ours, theirs in zip(logprobs, score, strict=True)))
    if not worst <= tolerance:
        raise ServerError(
            f"the policy server does not have the weights that it was given: its log-probabilities are off by up to "
            f"{worst:.3g} (allowed {tolerance:.3g})"
        )
    return worst


def _completion(choice: Mapping[str, Any]) -> Completion:
    """Returns one choice of an answer as the record that travels on."""
    if choice["finish_reason"] not in ("stop", "length"):
        raise ServerError(f"the policy server ended a response with {choice['finish_reason']!r}")
    versions = [span["version"] for span in choice["weight_versions"]]
    if INCOMPLETE in versions:
        raise ServerError("the policy server holds unfinished weights since an update failed; update them again")
    content = choice["logprobs"]["content"]
    assert [entry["token_id"] for entry in content] == choice["token_ids"], "log-probabilities belong to other tokens"
    return Completion(
        token_ids=tuple(choice["token_ids"]),
        logprobs=tuple(_finite(entry["logprob"]) for entry in content),
        policy_version=min(int(version) for version in versions),
        finish_reason=choice["finish_reason"],
    )


def _finite(logprob: float) -> float:
    if not math.isfinite(logprob) or logprob <= NOT_A_NUMBER:
        raise ServerError(f"the policy server gave {logprob} for a log-probability: its weights are broken")
    return logprob
