"""Statistics of the policy server's prefix cache, from vLLM's counters."""

from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

LOOKED_UP, FOUND = "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"  # tokens


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
