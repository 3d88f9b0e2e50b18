"""Read the policy server's answers: responses, log-probabilities, and the use of its prefix cache."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from rollout.errors import ServerError
from rollout.inference.weight_updates import INCOMPLETE
from rollout.types import Completion

NOT_A_NUMBER = -9999.0  # what vLLM sends instead of a log-probability that JSON cannot represent
LOOKED_UP, FOUND = "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"  # tokens


def completion_of(choice: Mapping[str, Any]) -> Completion:
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
        logprobs=tuple(finite(entry["logprob"]) for entry in content),
        policy_version=min(int(version) for version in versions),
        finish_reason=choice["finish_reason"],
    )


def ended(completion: Completion, stop_ids: Sequence[int]) -> Completion:
    """Return a constrained response without the end token, unless that is one of `stop_ids`.

    A grammar ends with the end token that the checkpoint states, which is not that of a turn in base models.
    """
    if completion.finish_reason == "length" or completion.token_ids[-1] in stop_ids:
        return completion
    return replace(completion, token_ids=completion.token_ids[:-1], logprobs=completion.logprobs[:-1])


def finite(logprob: float) -> float:
    """Return a log-probability; raises ServerError if it is not finite."""
    if not math.isfinite(logprob) or logprob <= NOT_A_NUMBER:
        raise ServerError(f"the policy server returned {logprob} as a log-probability: its weights are broken")
    return logprob


@dataclass(frozen=True)
class PrefixCacheStats:
    """The use of a server's prefix cache since the server started.

    For vLLM, n samples of a prompt are n requests. Each looks up the whole prompt, and all but the first find its full
    blocks, so samples alone give a hit rate of up to (n - 1) / n. Requests that start in the same step find each
    other's blocks too, so their order does not matter. Scoring a prompt and recomputation after a weight update are not
    counted.

    Attributes:
        tokens: The number of prompt tokens looked up; a prompt counts once for each of its samples.
        hits: The number of them found in the cache.
    """

    tokens: int
    hits: int

    def since(self, before: "PrefixCacheStats") -> "PrefixCacheStats":
        """Return the use since `before`, or all of it if the server was restarted in between."""
        if self.tokens < before.tokens:
            return self
        return PrefixCacheStats(self.tokens - before.tokens, self.hits - before.hits)


def parse_prefix_cache_stats(metrics: str) -> PrefixCacheStats:
    """Return the counters in the text of the server's metrics, summed over all engines."""
    counts = dict.fromkeys((LOOKED_UP, FOUND), 0.0)
    for sample in (sample for family in text_string_to_metric_families(metrics) for sample in family.samples):
        if sample.name in counts:
            counts[sample.name] += sample.value
    return PrefixCacheStats(tokens=int(counts[LOOKED_UP]), hits=int(counts[FOUND]))
