"""The policy server's client: sample and score tokens, and update the weights."""

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import httpx

from rollout.errors import ServerError
from rollout.inference.answers import PrefixCacheStats, completion_of, ended, finite, parse_prefix_cache_stats
from rollout.inference.broadcast import BroadcastUpdate, P, WeightSender
from rollout.inference.canary import Canary
from rollout.inference.connection import Connection
from rollout.inference.recovery import Recovery
from rollout.inference.replicas import HEADER, verify_replicas
from rollout.inference.served_weights import GivenWeights, ServedWeights
from rollout.inference.server_process import ServerProcess
from rollout.inference.weight_files import ADAPTER, check_adapter, check_same_tensors, tensor_shapes
from rollout.inference.weight_updates import (
    INCOMPLETE,
    INITIAL,
    AdapterUpdates,
    InPlaceUpdates,
    NamedAdapter,
    RestartUpdates,
    WeightUpdates,
)
from rollout.runtime.http import proxy_hint
from rollout.types import Completion

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
        key: str = "",
        recovery: Recovery | None = None,
        max_adapter_rank: int = 0,
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
            key: The server's key; empty if it has none.
            recovery: The way to bring back a server that is lost; None if there is none.
            max_adapter_rank: The largest rank of the adapters that the server takes as new weights; 0 if it loads whole
                weights.

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
        self.connection = Connection(address, request_seconds, key)
        self._max_adapter_rank = max_adapter_rank
        self._updates: WeightUpdates = _updates(self.connection, restarts, max_adapter_rank)
        self._served_tensors: dict[str, tuple[int, ...]] = {}
        self._rejected: set[str] = set()  # versions that failed verification
        self._served = ServedWeights(self.connection, self._updates, self._verify, recovery)
        self._num_workers = self._num_replicas = 1
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
            self._num_workers, in_replica = [
                (await self.connection.get(f"/get_world_size?include_dp={value}"))["world_size"]
                for value in ("true", "false")
            ]
        except (httpx.TransportError, httpx.UnsupportedProtocol, ServerError) as error:
            address, reason = self.connection.address, str(error) or type(error).__name__
            raise ValueError(
                f"no policy server at {address} answers ({reason}){proxy_hint(address)}; start one with "
                "`mlagent server --config FILE`, and give its key to both"
            ) from None
        served, label = Path(models["data"][0]["root"]), info["weight_version"]
        self._num_replicas = self._num_workers // in_replica
        self._served_tensors = tensor_shapes(served) if served.is_dir() else {}
        folder = await self._updates.prepare(served, label)
        if label == INITIAL:
            await self.connection.post("/update_weight_version", {"new_version": str(self.version)})
        elif label != INCOMPLETE:
            self.version = int(label)
        self._served.given = None if folder is None else GivenWeights(folder, self.version)

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
        the older version. A request during a weight update waits for the new weights. A request that is lost with the
        server is repeated as soon as the server is back.

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

    async def score(self, token_ids: Sequence[int], replica: int | None = None) -> list[float]:
        """Return the log-probability at temperature 1 of every token but the first, given the tokens before it.

        Args:
            token_ids: The tokens.
            replica: The number of the replica that computes them; None leaves the choice to the server.
        """
        settings = {"max_tokens": 1, "prompt_logprobs": 0, "detokenize": False}
        answer = await self._generate(token_ids, settings, self._updates.adapter, replica)
        entries = answer["prompt_logprobs"][1:]
        return [finite(entry[str(token)]["logprob"]) for token, entry in zip(token_ids[1:], entries, strict=True)]

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

        Requests in flight go on with their own adapter if the server takes adapters. One that loads whole weights
        pauses them, and they continue with the new weights. A server that is restarted finishes them first. If the
        update fails, the previous weights are restored, which needs their files.

        Args:
            folder: The checkpoint directory, on a disk that the server can read.
            version: The version that responses carry from now on.
            digests: The digest of each tensor, compared with the files' content.
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
                await self._served.give(GivenWeights(folder, version, digests, canary))
            except (ServerError, ValueError) as error:
                self._rejected.add(str(version))
                raise ServerError(f"{error}; {await self._restore()}") from None
            self._rejected.discard(str(version))
            self.version = version

    async def update_by_broadcast(
        self, sender: WeightSender[P], parts: Iterator[P], version: int, canary: Canary
    ) -> None:
        """Make the server sample from weights that its workers receive in a broadcast, as `version`.

        Args:
            sender: Rank 0 of the broadcast.
            parts: All tensors of the checkpoint.
            version: The version that responses carry from now on.
            canary: A prompt with known log-probabilities that verifies the new weights.

        Raises:
            ServerError: If the update failed; see `update_weights`. The previous weights can be restored only if they
                are those that the server was started on.
        """
        async with self._updating:
            update = BroadcastUpdate(self.connection, sender, parts)
            try:
                await update.join(self._num_workers)
            except ServerError as error:
                raise ServerError(f"{error}; version {self.version} is still served") from None
            try:
                await update.run(version)
                await self._verify(canary)
            except ServerError as error:
                self._rejected.add(str(version))
                raise ServerError(f"{error}; {await self._restore()}") from None
            self._rejected.discard(str(version))
            self.version, self._served.given = version, None

    def serves(self, folder: Path, version: int) -> bool:
        """Return whether the server is known to have the weights of a checkpoint directory, as `version`."""
        given = self._served.given
        return given is not None and given.version == version and given.folder.resolve() == folder.resolve()

    async def verify(self, canary: Canary) -> None:
        """Check the served weights by a canary, which also verifies them if they are given again to a lost server.

        Raises:
            ServerError: If its log-probabilities are not those of the canary.
        """
        await self._verify(canary)
        if self._served.given is not None:
            self._served.given = replace(self._served.given, canary=canary)

    @property
    def num_recoveries(self) -> int:
        """The number of times that the server was lost and brought back."""
        return self._served.num_recoveries

    async def _verify(self, canary: Canary) -> None:
        await verify_replicas(self.score, self._num_replicas, canary)

    async def _sample(
        self, prompt_ids: Sequence[int], num_samples: int, seed: int, grammar: str | None
    ) -> list[Completion]:
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
        choices, versions = await self._choices(prompt_ids, sampling)
        if versions != {str(self.version)}:
            async with self._updating:  # wait until new weights are verified before returning their responses
                if versions & self._rejected:
                    raise ServerError("a response was sampled from weights that failed verification")
        completions = [completion_of(choice) for choice in choices]
        return completions if grammar is None else [ended(completion, self.stop_ids) for completion in completions]

    async def _choices(
        self, prompt_ids: Sequence[int], sampling: Mapping[str, Any]
    ) -> tuple[list[Mapping[str, Any]], set[str]]:
        """Return the choices of an answer and the versions that wrote them; a lost server is brought back first."""
        while True:
            async with self._updating:
                num_recoveries, adapter = self.num_recoveries, self._updates.adapter
            try:
                answer = await self._generate(prompt_ids, sampling, adapter)
                choices = sorted(answer["choices"], key=lambda choice: choice["index"])
                versions = {span["version"] for choice in choices for span in choice["weight_versions"]}
                if INITIAL in versions:
                    raise ServerError(f"{self.connection.address} was restarted and has other weights")
                if adapter is not None:  # the server's version is that of the newest one
                    spans = {"weight_versions": [{"version": str(adapter.version)}]}
                    return [{**choice, **spans} for choice in choices], {str(adapter.version)}
                return choices, versions
            except ServerError as error:
                async with self._updating:
                    if self.num_recoveries > num_recoveries:
                        continue  # another request has found it lost
                    if not await self._served.is_lost():
                        raise
                    if self._served.given is None:
                        raise ServerError(f"{error}; run the same command again to give it the run's weights") from None
                    await self._served.bring_back(self._served.given)

    async def _generate(
        self,
        token_ids: Sequence[int],
        sampling: Mapping[str, Any],
        adapter: NamedAdapter | None,
        replica: int | None = None,
    ) -> Mapping[str, Any]:
        body = {"token_ids": list(token_ids), "sampling_params": sampling}
        if adapter is not None:
            body["model"] = adapter.name
        headers = {} if replica is None else {"headers": {HEADER: str(replica)}}
        return await self.connection.post("/inference/v1/generate", body, **headers)

    async def _restore(self) -> str:
        """Restore the previous weights after a failed update, and return a description of the server's state."""
        if await self._served.restore():
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
        if isinstance(self._updates, AdapterUpdates) and self._updates.has_adapter(folder):
            check_adapter(folder / ADAPTER, self._served_tensors, self._max_adapter_rank)
        else:
            check_same_tensors(folder, self._served_tensors)


def _updates(connection: Connection, restarts: ServerProcess | None, max_adapter_rank: int) -> WeightUpdates:
    """Return the kind of weight update of a server; see `PolicyClient`."""
    if max_adapter_rank:
        return AdapterUpdates(connection)
    return InPlaceUpdates(connection) if restarts is None else RestartUpdates(connection, restarts)
