"""Seconds of an update: those of its phases, and those in which a resource was at work."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mlagent_jax.ppo.accounting import PrefixCacheMeter, Stopwatch, update_counts
from rollout.errors import ServerError
from rollout.inference.answers import PrefixCacheStats
from rollout.runtime.timeline import GENERATION, SCRIPTS, TRAINING, TRANSFER, Timeline
from rollout.sampling.experience import Experience


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_phases_and_resources_of_an_update_by_hand(
    clock: list[float], tmp_path: Path, make_experience: Callable[..., Experience]
) -> None:
    with Timeline(tmp_path / "timeline.json") as timeline:
        timeline.add(SCRIPTS, "of the update before", 90.0, 95.0)
        watch = Stopwatch(timeline, num_slots=2)
        with watch.phase("rollout"):
            timeline.add(GENERATION, "samples", 100.0, 102.0)
            timeline.add(SCRIPTS, "begun before", 40.0, 100.0)
            timeline.add(SCRIPTS, "a.py", 101.0, 104.0)
            timeline.add(SCRIPTS, "b.py", 103.0, 105.0)
            clock[0] = 105.0
        with watch.phase("update", TRAINING):
            clock[0] = 108.0
        with watch.phase("sync", TRANSFER):
            clock[0] = 110.0
        found = watch.lap([make_experience([1] * 30, [2] * 5), make_experience([1] * 12, [2] * 3)])
    assert found == {
        "time/rollout_seconds": 5.0,
        "time/update_seconds": 3.0,
        "time/sync_seconds": 2.0,
        "time/total_seconds": 10.0,
        "time/response_tokens_per_second": 0.8,
        "time/tokens_per_second": 5.0,
        "time/busy_generation_seconds": 2.0,
        "time/idle_generation_seconds": 8.0,
        "time/busy_scripts_seconds": 4.0,
        "time/idle_scripts_seconds": 6.0,
        "time/busy_training_seconds": 3.0,
        "time/idle_training_seconds": 7.0,
        "time/busy_weight_transfer_seconds": 2.0,
        "time/idle_weight_transfer_seconds": 8.0,
        "time/script_slots_share": 0.25,
    }


def test_what_ends_between_two_updates_is_in_the_second(
    clock: list[float], tmp_path: Path, make_experience: Callable[..., Experience]
) -> None:
    with Timeline(tmp_path / "timeline.json") as timeline:
        watch = Stopwatch(timeline)
        with watch.phase("rollout"):
            clock[0] = 104.0
        first = watch.lap([make_experience([1] * 4, [2] * 4)])
        clock[0] = 107.0  # the checkpoint of the first, while actions of the second are done
        timeline.add(SCRIPTS, "begun in the first", 103.0, 105.0)
        timeline.add(SCRIPTS, "between the two", 105.0, 107.0)
        with watch.phase("rollout"):
            clock[0] = 108.0
        second = watch.lap([make_experience([1] * 4, [2] * 4)])
    assert (first["time/total_seconds"], second["time/total_seconds"]) == (4.0, 4.0)
    assert (first["time/busy_scripts_seconds"], second["time/busy_scripts_seconds"]) == (0.0, 3.0)
    assert (first["time/rollout_seconds"], second["time/rollout_seconds"]) == (4.0, 1.0)


def test_cache_share_of_each_update_is_of_its_own_prompts() -> None:
    restarted = PrefixCacheStats(400, 100)
    readings = iter(
        [
            PrefixCacheStats(1000, 900),
            PrefixCacheStats(3000, 1400),
            PrefixCacheStats(3000, 1400),
            PrefixCacheStats(3500, 1400),
            restarted,
        ]
    )
    count = PrefixCacheMeter(lambda: next(readings))
    assert count.lap() == {"time/prompt_tokens": 2000, "time/prefix_cache_hit_share": 0.25}
    idle = count.lap()
    assert idle["time/prompt_tokens"] == 0
    assert math.isnan(idle["time/prefix_cache_hit_share"])
    assert count.lap() == {"time/prompt_tokens": 500, "time/prefix_cache_hit_share": 0.0}
    assert count.lap() == {"time/prompt_tokens": 400, "time/prefix_cache_hit_share": 0.25}


def test_a_server_that_tells_no_counters_gives_no_figures() -> None:
    def read() -> PrefixCacheStats:
        raise ServerError("GET /metrics was answered 404")

    assert PrefixCacheMeter(read).lap() == {}


def test_the_actions_of_all_updates_are_counted_from_the_metrics() -> None:
    shares = {"reward/masked_share": 0.25, "reward/cut_share": 0.0, "reward/invalid_share": 1 / 3}
    lines = [
        {"sft/step": 1.0},
        {
            "ppo/update": 0.0,
            "reward/actions": 8.0,
            "reward/std": 0.5,
            **shares,
            "ppo/step_share": 0.5,
            "scripts/wait_seconds": 0.5,
            "scripts/ok": 2.0,
        },
        {"ppo/update": 1.0, "reward/actions": 4.0, "reward/std": 1e-17, "reward/cut_share": 0.75, "scripts/ok": 3.0},
        # of a version that did not record the deviation
        {
            **{"ppo/update": 2.0, "reward/actions": 4.0, "ppo/step_share": 0.0},
            **{"reward/redone_share": 0.5, "server/restarts": 2.0},
        },
    ]
    assert update_counts(lines) == {
        "num_updates": 3,
        "num_flat_updates": 1,
        "num_cut_updates": 1,
        "num_rejected_updates": 1,
        "num_redone_updates": 1,
        "num_restarted_updates": 1,
        "num_actions": 16,
        "num_known": 14,
        "num_masked": 2,
        "num_invalid": 2,
        "scripts/ok": 5,
    }
