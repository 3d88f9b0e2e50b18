"""Measure the time of each part of an update and the hits of the prefix cache, and count what happened to actions."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress

from rollout.errors import ServerError
from rollout.inference.answers import PrefixCacheStats
from rollout.runtime.timeline import GENERATION, SCRIPTS, TRAINING, TRANSFER, Timeline, busy_seconds
from rollout.sampling.experience import Experience

SAME_REWARD = 1e-9  # largest deviation of rewards that are the same


class Stopwatch:
    """Measure updates, each of which begins when the one before ends, so that no time is lost between them.

    The phases of an update follow one another. The work of a resource may span several phases.
    """

    def __init__(self, timeline: Timeline, num_slots: int = 1) -> None:
        """Begin the first update, which excludes the earlier work in the timeline.

        Args:
            timeline: The work of all resources.
            num_slots: The number of scripts that can run at one time.
        """
        self._timeline, self._num_slots = timeline, num_slots
        self._began = time.time()
        self._seconds: dict[str, float] = {}
        timeline.take()

    @contextmanager
    def phase(self, name: str, resource: str | None = None) -> Iterator[None]:
        """Time a phase, and record it as work of `resource` if one is given."""
        began = time.monotonic()
        with self._timeline.span(resource, name) if resource else nullcontext():
            yield
        self._seconds[name] = time.monotonic() - began

    def lap(self, experiences: Sequence[Experience]) -> dict[str, float]:
        """End an update, begin the next, and return the figures of the one that ended.

        The figures are the seconds of each phase, the busy and idle seconds of each resource, and tokens per second. A
        resource is busy while any of its work is under way. Scripts also have the share of all slots in use. Work that
        is under way at the end counts in the update in which it ends, from the beginning of that update. Tokens are
        counted for responses alone, and for responses and prompts.
        """
        began, ended = self._began, time.time()
        total = ended - began
        figures = {f"time/{phase}_seconds": seconds for phase, seconds in self._seconds.items()}
        self._began, self._seconds = ended, {}
        figures["time/total_seconds"] = total
        responses = sum(len(each.response_ids) for each in experiences)
        prompts = sum(len(each.prompt_ids) for each in experiences if not each.cut)
        figures["time/response_tokens_per_second"] = responses / total
        figures["time/tokens_per_second"] = (responses + prompts) / total
        spans = self._timeline.take()
        for resource in (GENERATION, SCRIPTS, TRAINING, TRANSFER):
            busy = busy_seconds(spans.get(resource, []), began, ended)
            name = resource.replace(" ", "_")
            figures |= {f"time/busy_{name}_seconds": busy, f"time/idle_{name}_seconds": total - busy}
        running = sum(busy_seconds([span], began, ended) for span in spans.get(SCRIPTS, []))
        return figures | {"time/script_slots_share": running / (self._num_slots * total)}


class PrefixCacheMeter:
    """Measure the hits of the server's prefix cache in each update, which begins when the one before ends."""

    def __init__(self, read: Callable[[], PrefixCacheStats]) -> None:
        """Begin the first update.

        Args:
            read: A function that returns the server's counters, or raises ServerError if it has none; there are no
                figures then.
        """
        self._read = read
        self._before: PrefixCacheStats | None = None
        with suppress(ServerError):
            self._before = read()

    def lap(self) -> dict[str, float]:
        """End an update, begin the next, and return the number of prompt tokens and the share found in the cache.

        A prompt counts once for each of its samples, as in `PrefixCacheStats`, in the update during which it was
        sampled, even if it was sampled early. New weights empty the cache, so a hit is another sample of the same
        prompt, or a history shared within the update. Recorded actions are not sampled again, so both figures depend on
        interruptions, as times do. The share is NaN if nothing was sampled. Requests of other clients count too.
        """
        if self._before is None:
            return {}
        try:
            now = self._read()
        except ServerError:  # it is down, and will be brought back before it is needed
            return {}
        before, self._before = self._before, now
        used = now.since(before)
        return {
            "time/prompt_tokens": used.tokens,
            "time/prefix_cache_hit_share": used.hits / used.tokens if used.tokens else math.nan,
        }


class RestartCounter:
    """Count how often the policy server was brought back in each update, which begins when the one before ends."""

    def __init__(self, read: Callable[[], int]) -> None:
        """Begin the first update; `read` returns the number of all restarts so far."""
        self._read, self._before = read, read()

    def lap(self) -> dict[str, float]:
        """End an update, begin the next, and return the count."""
        before, self._before = self._before, self._read()
        return {"server/restarts": float(self._before - before)}


def update_counts(metrics: Sequence[Mapping[str, float]]) -> dict[str, int]:
    """Return counts over all updates of a training, from the lines of its metrics.

    `num_flat_updates` counts updates in which all actions had the same reward, `num_cut_updates` those in which most
    rollouts were not begun, `num_rejected_updates` those whose every step was longer than `ppo.max_update_kl` allows,
    `num_redone_updates` those in which actions ran again, because too many were lost, and `num_restarted_updates`
    those in which the policy server was lost and brought back. Actions are counted if they were begun, `num_known` only
    if they were not masked. The counts of scripts have the names of the metrics, such as `scripts/crashed`.
    """
    counts: dict[str, int] = dict.fromkeys(
        (
            *("num_updates", "num_flat_updates", "num_cut_updates", "num_rejected_updates"),
            *("num_redone_updates", "num_restarted_updates"),
            *("num_actions", "num_known", "num_masked", "num_invalid"),
        ),
        0,
    )
    for line in metrics:
        if "ppo/update" not in line:
            continue
        num_actions = round(line.get("reward/actions", 0))
        num_masked = round(line.get("reward/masked_share", 0.0) * num_actions)
        counts["num_updates"] += 1
        counts["num_flat_updates"] += line.get("reward/std", 1.0) < SAME_REWARD
        counts["num_restarted_updates"] += line.get("server/restarts", 0.0) > 0
        counts["num_redone_updates"] += line.get("reward/redone_share", 0.0) > 0
        counts["num_cut_updates"] += line.get("reward/cut_share", 0.0) > 0.5
        counts["num_actions"] += num_actions
        counts["num_masked"] += num_masked
        counts["num_known"] += num_actions - num_masked
        counts["num_rejected_updates"] += line.get("ppo/step_share") == 0.0
        counts["num_invalid"] += round(line.get("reward/invalid_share", 0.0) * (num_actions - num_masked))
        for name, value in line.items():
            if name.startswith("scripts/") and not name.endswith("_seconds"):
                counts[name] = counts.get(name, 0) + round(value)
    return counts
