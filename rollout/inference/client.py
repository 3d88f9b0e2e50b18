"""The policy server's client: tokens in, tokens and log-probabilities out, new weights by one call."""

import asyncio
import contextlib
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx

from rollout.errors import ServerError
from rollout.inference.canary import Canary, verify_weights
from rollout.inference.connection import Connection
from rollout.inference.prefix_cache_stats import PrefixCacheStats, read_cache_use
from rollout.inference.server_process import ServerProcess
from rollout.inference.weight_files import check_same_tensors, tensor_shapes
from rollout.inference.weight_updates import INCOMPLETE, UNNAMED, Loading, Restarting, WeightUpdates
from rollout.types import Completion

NOT_A_NUMBER = -9999.0  # vLLM's stand-in for a log-probability that JSON cannot carry


class PolicyClient:
    """A `rollout.types.Policy` behind a server that `rollout.inference.server` started.

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
        restarts: ServerProcess | None = None,
    ):
        """Describe a client; `connect`, or entering the block, comes first.

        Args:
            address: such as http://127.0.0.1:8000.
            temperature: sampling temperature, > 0.
            max_tokens: longest response, end token included.
            stop_ids: tokens that end a response; they are part of it.
            request_seconds: how long one request may take, waiting in the server's queue included.
            restarts: the server's process, which new weights start anew; None: the server loads them as it runs.
        """
        if temperature <= 0:
            raise ValueError(f"temperature={temperature} is not a sampling temperature; expected a number above 0")
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.stop_ids = list(stop_ids)
        self.version = 0
        self.connection = Connection(address, request_seconds)
        self._updates: WeightUpdates = (
            Loading(self.connection) if restarts is None else Restarting(self.connection, restarts)
        )
        self._served_tensors: dict[str, tuple[int, ...]] = {}
        self._withdrawn: set[str] = set()  # versions that failed their proof
        self._folder: Path | None = None  # of the weights that serve, where it is known
        self._updating = asyncio.Lock()

    async def connect(self) -> None:
        """Learn what the server serves and makes it ready for new weights.

        Raises:
            ValueError: where nothing answers at the address, or a server that cannot take new weights.
        """
        try:
            await self.connection.ping()  # at once: waiting does not mend a wrong address
            models = await self.connection.get("/v1/models")
            info = await self.connection.get("/weight_info")
        except (httpx.TransportError, httpx.UnsupportedProtocol, ServerError) as error:
            raise ValueError(
                f"no policy server at {self.connection.address}: {error}; start one with "
                "`python -m rollout.server --model DIR`"
            ) from None
        served, label = Path(models["data"][0]["root"]), info["weight_version"]
        self._served_tensors = tensor_shapes(served) if served.is_dir() else {}
        self._folder = await self._updates.prepare(served, label)
        if label == UNNAMED:
            await self.connection.post("/update_weight_version", {"new_version": str(self.version)})
        elif label != INCOMPLETE:
            self.version = int(label)

    async def close(self) -> None:
        """Close the connections; the server goes on."""
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
        """Return `num_samples` responses to one prompt, each with the version of the weights that wrote it.

        The same seed, prompt and weights give the same responses. A response that weights changed under carries the
        older version. Requests that come while weights change wait for the new ones.

        Raises:
            ServerError: where the server does not answer, refuses, or has unfinished weights.
        """
        async with self._updating:
            pass
        answer = await self.connection.post(
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
        choices = sorted(answer["choices"], key=lambda choice: choice["index"])
        versions = {span["version"] for choice in choices for span in choice["weight_versions"]}
        if versions != {str(self.version)}:
            async with self._updating:  # weights under way are proven, or withdrawn, before what they wrote is returned
                if versions & self._withdrawn:
                    raise ServerError("a response was sampled from weights that failed their proof")
        return [_completion(choice) for choice in choices]

    async def score(self, token_ids: Sequence[int]) -> list[float]:
        """Return the log-probability at temperature 1 of every token but the first, given those before it."""
        answer = await self.connection.post(
            "/inference/v1/generate",
            {
                "token_ids": list(token_ids),
                "sampling_params": {"max_tokens": 1, "prompt_logprobs": 0, "detokenize": False},
            },
        )
        found = answer["prompt_logprobs"][1:]
        return [_finite(entry[str(token)]["logprob"]) for token, entry in zip(token_ids[1:], found, strict=True)]

    async def prefix_cache_stats(self) -> PrefixCacheStats:
        """Return what the server's prefix cache has given to all that was sampled since the server started.

        Raises:
            ServerError: where the server does not answer.
        """
        return read_cache_use(await self.connection.text("/metrics"))

    async def update_weights(
        self, folder: Path, version: int, digests: Mapping[str, str] | None = None, canary: Canary | None = None
    ) -> None:
        """Make the server sample from the weights of a checkpoint directory, as `version`.

        A server that loads them freezes requests under way, which go on with the new weights; one that is restarted
        ends them first. Where this fails the weights before are put back, for which their files must still be there.

        Args:
            folder: on a disk that the server sees.
            version: what the responses carry from now on.
            digests: SHA-256 of each tensor, compared with what is in the files.
            canary: what the server must say of a prompt once it has the weights.

        Raises:
            ValueError: where tensors of `folder` are missing, unknown, or of another shape or kind; nothing was sent.
            ServerError: where the server failed at it; says which version it has now. Sampling raises until an update
                succeeds if the one before could not be put back.
        """
        self.check_weights(folder)
        digests = digests or {}
        async with self._updating:
            try:
                await self._updates.check(folder, digests)
            except ServerError as error:
                raise ServerError(f"{error}; version {self.version} serves on") from None
            try:
                await self._updates.serve(folder, version, digests)
                if canary is not None:
                    await verify_weights(self, [(canary.token_ids, canary.logprobs)], canary.tolerance)
            except (ServerError, ValueError) as error:
                self._withdrawn.add(str(version))
                raise ServerError(f"{error}; {await self._go_back()}") from None
            self._withdrawn.discard(str(version))
            self.version, self._folder = version, folder

    def serves(self, folder: Path, version: int) -> bool:
        """Return whether the server is known to have the weights of a checkpoint directory, as `version`."""
        return self.version == version and self._folder is not None and self._folder.resolve() == folder.resolve()

    async def _go_back(self) -> str:
        """Put the weights before back after a failed update; returns what the server has now, in words."""
        if self._folder is not None:
            with contextlib.suppress(ServerError, ValueError):  # what led here says more
                await self._updates.serve(self._folder, self.version, {})
                return f"version {self.version} serves again"
        return f"version {self.version} could not be put back, so nothing can be sampled: start the server anew"

    def check_weights(self, folder: Path) -> None:
        """Check that a checkpoint directory can replace the served weights.

        vLLM itself answers 200 to a missing tensor, leaving part of a layer uninitialised, and dies of a wrong shape.

        Raises:
            ValueError: as `update_weights`.
        """
        if not self._served_tensors:
            raise ValueError(
                f"{self.connection.address} serves a directory that this machine does not have; start it on this one"
            )
        check_same_tensors(folder, self._served_tensors)


def _completion(choice: Mapping[str, Any]) -> Completion:
    """Return one choice of an answer as the record that travels on."""
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
