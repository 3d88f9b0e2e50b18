"""What the policy server's prefix cache spares, by vLLM's own counters."""

from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

LOOKED_UP, FOUND = "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"  # tokens


@dataclass(frozen=True)
class PrefixCacheStats:
    """How much of the prompts a server took from its prefix cache, since it started.

    To vLLM n samples of a prompt are n requests: each looks the whole prompt up, and all but the first find its full
    blocks, so samples alone give a share of up to (n - 1) / n. Requests that begin in one step find one another's
    blocks too, so their order changes nothing. Neither what scores a prompt nor what new weights have computed again
    is counted.

    Attributes:
        tokens: prompt tokens that were looked up; those of a prompt count once for each of its samples.
        hits: how many of them were there.
    """

    tokens: int
    hits: int

    def since(self, before: "PrefixCacheStats") -> "PrefixCacheStats":
        """Return what came after `before`; all of it where the server was started anew in between."""
        if self.tokens < before.tokens:
            return self
        return PrefixCacheStats(self.tokens - before.tokens, self.hits - before.hits)


def read_cache_use(metrics: str) -> PrefixCacheStats:
    """Return the counters in the text of the server's metrics, those of all engines together."""
    counts = dict.fromkeys((LOOKED_UP, FOUND), 0.0)
    for sample in (sample for family in text_string_to_metric_families(metrics) for sample in family.samples):
        if sample.name in counts:
            counts[sample.name] += sample.value
    return PrefixCacheStats(tokens=int(counts[LOOKED_UP]), hits=int(counts[FOUND]))
