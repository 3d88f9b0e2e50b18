"""Where the time of an update goes, by phase and by resource at work or idle, and what the prefix cache spares."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress

from rollout.errors import ServerError
from rollout.inference.prefix_cache_stats import PrefixCacheStats
from rollout.runtime.timeline import GENERATION, SCRIPTS, TRAINING, TRANSFER, Timeline, busy_seconds
from rollout.sampling.experience import Experience


class Stopwatch:
    """Measures updates, each of which begins where the one before ended: no work between two of them is lost.

    The phases of an update follow one another, and resources work within and across them.
    """

    def __init__(self, timeline: Timeline | None, num_slots: int = 1) -> None:
        """Begin the first update; what the timeline holds from before is in none.

        Args:
            timeline: None on the processes that do not lead, which have no resources but their own.
            num_slots: scripts that can run at one time.
        """
        self._timeline, self._num_slots = timeline, num_slots
        self._began = time.time()
        self._seconds: dict[str, float] = {}
        if timeline is not None:
            timeline.take()

    @contextmanager
    def __call__(self, phase: str, resource: str | None = None) -> Iterator[None]:
        """Time a phase, in which `resource` is at work where one is named."""
        began = time.monotonic()
        with self._timeline.span(resource, phase) if self._timeline and resource else nullcontext():
            yield
        self._seconds[phase] = time.monotonic() - began

    def lap(self, experiences: Sequence[Experience]) -> dict[str, float]:
        """End an update and begins the next; returns its seconds of phases and resources and tokens a second, flat.

        A resource is busy while any of its work is under way, and idle for the rest. Scripts also have the share of
        all slots that were in use. What is still under way at the end counts in the update in which it ends, from that
        one's begin on. Tokens are those of the responses, and with their states.
        """
        began, ended = self._began, time.time()
        total = ended - began
        found = {f"time/{phase}_seconds": seconds for phase, seconds in self._seconds.items()}
        self._began, self._seconds = ended, {}
        found["time/total_seconds"] = total
        responses = sum(len(each.response_ids) for each in experiences)
        prompts = sum(len(each.prompt_ids) for each in experiences if not each.cut)
        found["time/response_tokens_per_second"] = responses / total
        found["time/tokens_per_second"] = (responses + prompts) / total
        if self._timeline is None:
            return found
        spans = self._timeline.take()
        for resource in (GENERATION, SCRIPTS, TRAINING, TRANSFER):
            busy = busy_seconds(spans.get(resource, []), began, ended)
            name = resource.replace(" ", "_")
            found |= {f"time/busy_{name}_seconds": busy, f"time/idle_{name}_seconds": total - busy}
        running = sum(busy_seconds([span], began, ended) for span in spans.get(SCRIPTS, []))
        return found | {"time/script_slots_share": running / (self._num_slots * total)}


class PrefixCacheMeter:
    """Counts what the server's prefix cache gives to each update, from where the one before ended."""

    def __init__(self, read: Callable[[], PrefixCacheStats] | None) -> None:
        """Begin the first update; a server that tells no counters gives no figures.

        Args:
            read: gives the server's counters or raises ServerError; None on the processes that do not lead.
        """
        self._read, self._before = read, None
        with suppress(ServerError):
            self._before = read() if read else None

    def lap(self) -> dict[str, float]:
        """End an update and begins the next; returns its prompt tokens and the share that came from the cache, flat.

        A prompt counts once for each of its samples, as in `PrefixCacheStats`, in the update during which it was
        sampled, even if that was early. New weights empty the cache, so a hit is a prompt's other sample or a history
        shared within the update. What a journal has is not sampled again, so both depend on interruptions, as times
        do; the share is nan where nothing was sampled. A server that others use too counts theirs.
        """
        if self._read is None or self._before is None:
            return {}
        before, self._before = self._before, self._read()
        found = self._before.since(before)
        return {
            "time/prompt_tokens": found.tokens,
            "time/prefix_cache_hit_share": found.hits / found.tokens if found.tokens else math.nan,
        }
