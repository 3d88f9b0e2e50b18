"""The policy server's client: sample and score tokens, and update the weights."""

import asyncio
import contextlib
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import httpx

from rollout.errors import ServerError
from rollout.inference.canary import Canary, verify_weights
from rollout.inference.connection import Connection
from rollout.inference.prefix_cache_stats import PrefixCacheStats, parse_prefix_cache_stats
from rollout.inference.server_process import ServerProcess
from rollout.inference.weight_files import check_same_tensors, tensor_shapes
from rollout.inference.weight_updates import INCOMPLETE, INITIAL, InPlaceUpdates, RestartUpdates, WeightUpdates
from rollout.runtime.http import proxy_hint
from rollout.types import Completion

NOT_A_NUMBER = -9999.0  # what vLLM sends instead of a log-probability that JSON cannot represent
PROBE_PROMPT, PROBE = "The word is ", "constrained"
NO_GRAMMARS = "start it with `python -m rollout.server`, or sample without a grammar"

Encode = Callable[[str], list[int]]
Decode = Callable[[Sequence[int]], str]


class PolicyClient:
    """A `rollout.types.Policy` behind a server that `rollout.inference.server` started.

    Sampling always uses the whole distribution at one temperature. With top-p or top-k, the sampler's log-probabilities
    would not be those of the policy that is trained.
    """

    def __init__(
        self,
        address: str,
        *,
        temperature: float,
        max_tokens: int,
        stop_ids: Sequence[int],
        request_seconds: float = 600.0,
        restarts: ServerProcess | None = None,
        grammar: str | None = None,
    ):
        """Describe a client. `connect`, or enter the `async with` block, before using it.

        Args:
            address: The server's address, such as http://127.0.0.1:8000.
            temperature: The sampling temperature, > 0.
            max_tokens: The length limit of a response in tokens, end token included.
            stop_ids: The tokens that end a response; they are part of it.
            request_seconds: The time limit of one request, including the wait in the server's queue.
            restarts: The server's process, to be restarted on new weights; None if the running server loads them.
            grammar: The grammar that every response obeys, in EBNF; None for none. The log-probabilities are then those
                of the constrained distribution, so such responses cannot train the policy. Call `check_grammars` first.

        Raises:
            ValueError: If the temperature is not positive.
        """
        if temperature <= 0:
            raise ValueError(f"temperature={temperature} is not a sampling temperature; expected a number above 0")
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.stop_ids = list(stop_ids)
        self.grammar = grammar
        self.version = 0
        self.connection = Connection(address, request_seconds)
        self._updates: WeightUpdates = (
            InPlaceUpdates(self.connection) if restarts is None else RestartUpdates(self.connection, restarts)
        )
        self._served_tensors: dict[str, tuple[int, ...]] = {}
        self._rejected: set[str] = set()  # versions that failed verification
        self._folder: Path | None = None  # the directory of the served weights, None if unknown
        self._updating = asyncio.Lock()

    async def connect(self) -> None:
        """Read which weights the server serves, and prepare it for weight updates.

        Raises:
            ValueError: If no server answers at the address, or it does not support weight updates.
        """
        try:
            await self.connection.ping()  # without retries, which do not help with a wrong address
            models = await self.connection.get("/v1/models")
            info = await self.connection.get("/weight_info")
        except (httpx.TransportError, httpx.UnsupportedProtocol, ServerError) as error:
            address, reason = self.connection.address, str(error) or type(error).__name__
            raise ValueError(
                f"no policy server at {address} answers ({reason}){proxy_hint(address)}; start one with "
                "`python -m rollout.server --model DIR`"
            ) from None
        served, label = Path(models["data"][0]["root"]), info["weight_version"]
        self._served_tensors = tensor_shapes(served) if served.is_dir() else {}
        self._folder = await self._updates.prepare(served, label)
        if label == INITIAL:
            await self.connection.post("/update_weight_version", {"new_version": str(self.version)})
        elif label != INCOMPLETE:
            self.version = int(label)

    async def close(self) -> None:
        """Close the connections; the server keeps running."""
        await self.connection.close()

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
        """Return `num_samples` responses to one prompt, each with the version of the weights that sampled it.

        The same seed, prompt and weights give the same responses. A response during which the weights changed carries
        the older version. A request during a weight update waits for the new weights.

        Raises:
            ServerError: If the server does not answer, refuses, or holds incomplete weights.
        """
        return await self._sample(prompt_ids, num_samples, seed, self.grammar)

    async def check_grammars(self, encode: Encode, decode: Decode) -> None:
        """Check that the server constrains responses, with a grammar that generates one text.

        Args:
            encode: A function that returns the tokens of a prompt.
            decode: A function that returns the text of a response.

        Raises:
            ServerError: If the server refuses grammars, or ignores them.
        """
        try:
            (completion,) = await self._sample(encode(PROBE_PROMPT), 1, 0, f'root ::= "{PROBE}"')
        except ServerError as error:
            raise ServerError(f"{error}; {NO_GRAMMARS}") from None
        text = decode(completion.token_ids)
        if text != PROBE:
            raise ServerError(
                f"{self.connection.address} ignores grammars: got {text[:40]!r}, expected {PROBE}; {NO_GRAMMARS}"
            )

    async def score(self, token_ids: Sequence[int]) -> list[float]:
        """Return the log-probability at temperature 1 of every token but the first, given the tokens before it."""
        answer = await self._generate(token_ids, {"max_tokens": 1, "prompt_logprobs": 0, "detokenize": False})
        entries = answer["prompt_logprobs"][1:]
        return [_finite(entry[str(token)]["logprob"]) for token, entry in zip(token_ids[1:], entries, strict=True)]

    async def prefix_cache_stats(self) -> PrefixCacheStats:
        """Return the use of the server's prefix cache by all sampling since the server started.

        Raises:
            ServerError: If the server does not answer.
        """
        return parse_prefix_cache_stats(await self.connection.text("/metrics"))

    async def update_weights(
        self, folder: Path, version: int, digests: Mapping[str, str] | None = None, canary: Canary | None = None
    ) -> None:
        """Make the server sample from the weights in a checkpoint directory, as `version`.

        A running server that loads the weights pauses requests in flight, which continue with the new weights. A server
        that is restarted finishes them first. If the update fails, the previous weights are restored, which needs their
        files.

        Args:
            folder: The checkpoint directory, on a disk that the server can read.
            version: The version that responses carry from now on.
            digests: The SHA-256 of each tensor, compared with the files' content.
            canary: A prompt with known log-probabilities that verifies the new weights.

        Raises:
            ValueError: If tensors in `folder` are missing, unknown, or of another shape or type; nothing was sent.
            ServerError: If the update failed. The message states the version that the server has now. If the previous
                weights could not be restored, sampling raises until an update succeeds.
        """
        self.check_weights(folder)
        digests = digests or {}
        async with self._updating:
            try:
                await self._updates.check(folder, digests)
            except ServerError as error:
                raise ServerError(f"{error}; version {self.version} is still served") from None
            try:
                await self._updates.serve(folder, version, digests)
                if canary is not None:
                    await verify_weights(self, [(canary.token_ids, canary.logprobs)], canary.tolerance)
            except (ServerError, ValueError) as error:
                self._rejected.add(str(version))
                raise ServerError(f"{error}; {await self._restore()}") from None
            self._rejected.discard(str(version))
            self.version, self._folder = version, folder

    def serves(self, folder: Path, version: int) -> bool:
        """Return whether the server is known to have the weights of a checkpoint directory, as `version`."""
        return self.version == version and self._folder is not None and self._folder.resolve() == folder.resolve()

    async def _sample(
        self, prompt_ids: Sequence[int], num_samples: int, seed: int, grammar: str | None
    ) -> list[Completion]:
        async with self._updating:
            pass
        sampling = {
            "n": num_samples,
            # vLLM gives sample k the seed + k. Distant seeds keep neighboring seeds from sharing samples.
            "seed": random.Random(f"{seed}/sample").getrandbits(48),
            "temperature": self.temperature,
            "top_p": 1.0,
            "top_k": -1,
            "max_tokens": self.max_tokens,
            "stop_token_ids": self.stop_ids,
            "logprobs": 0,
            "detokenize": False,
        }
        if grammar is not None:
            sampling["structured_outputs"] = {"grammar": grammar}
        answer = await self._generate(prompt_ids, sampling)
        choices = sorted(answer["choices"], key=lambda choice: choice["index"])
        versions = {span["version"] for choice in choices for span in choice["weight_versions"]}
        if versions != {str(self.version)}:
            async with self._updating:  # wait until new weights are verified before returning their responses
                if versions & self._rejected:
                    raise ServerError("a response was sampled from weights that failed verification")
        completions = [_completion(choice) for choice in choices]
        return completions if grammar is None else [_ended(completion, self.stop_ids) for completion in completions]

    async def _generate(self, token_ids: Sequence[int], sampling: Mapping[str, Any]) -> Mapping[str, Any]:
        body = {"token_ids": list(token_ids), "sampling_params": sampling}
        return await self.connection.post("/inference/v1/generate", body)

    async def _restore(self) -> str:
        """Restore the previous weights after a failed update, and return a description of the server's state."""
        if self._folder is not None:
            with contextlib.suppress(ServerError, ValueError):  # the first error is more informative
                await self._updates.serve(self._folder, self.version, {})
                return f"version {self.version} is served again"
        return f"version {self.version} could not be restored, so sampling is impossible: restart the server"

    def check_weights(self, folder: Path) -> None:
        """Check that a checkpoint directory can replace the served weights.

        vLLM itself answers 200 for a missing tensor, which leaves part of a layer uninitialized, and exits on a wrong
        shape.

        Raises:
            ValueError: If the tensors differ in name, shape or type.
        """
        if not self._served_tensors:
            raise ValueError(
                f"{self.connection.address} serves a directory that this machine does not have; start the server on "
                "this machine"
            )
        check_same_tensors(folder, self._served_tensors)


def _completion(choice: Mapping[str, Any]) -> Completion:
    """Return one choice of an answer as a `Completion`."""
    if choice["finish_reason"] not in ("stop", "length"):
        raise ServerError(f"the policy server ended a response with {choice['finish_reason']!r}")
    versions = [span["version"] for span in choice["weight_versions"]]
    if INCOMPLETE in versions:
        raise ServerError("the policy server holds incomplete weights after a failed update; update them again")
    content = choice["logprobs"]["content"]
    assert [entry["token_id"] for entry in content] == choice["token_ids"], "log-probabilities belong to other tokens"
    return Completion(
        token_ids=tuple(choice["token_ids"]),
        logprobs=tuple(_finite(entry["logprob"]) for entry in content),
        policy_version=min(int(version) for version in versions),
        finish_reason=choice["finish_reason"],
    )


def _ended(completion: Completion, stop_ids: Sequence[int]) -> Completion:
    """Return a constrained response without the end token, unless that is one of `stop_ids`.

    A grammar ends with the end token that the checkpoint states, which is not that of a turn in base models.
    """
    if completion.finish_reason == "length" or completion.token_ids[-1] in stop_ids:
        return completion
    return replace(completion, token_ids=completion.token_ids[:-1], logprobs=completion.logprobs[:-1])


def _finite(logprob: float) -> float:
    if not math.isfinite(logprob) or logprob <= NOT_A_NUMBER:
        raise ServerError(f"the policy server returned {logprob} as a log-probability: its weights are broken")
    return logprob
