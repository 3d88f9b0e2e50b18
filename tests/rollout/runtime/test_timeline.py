"""Spans of work: whole in the file, side by side in lanes, and summed up without counting a moment twice."""

import asyncio
import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.runtime.timeline import GENERATION, SCRIPTS, TRAINING, TimedExecutor, TimedPolicy, Timeline, busy_seconds


@pytest.fixture
def timeline(tmp_path: Path) -> Iterator[Timeline]:
    with Timeline(tmp_path / "timeline.json") as made:
        yield made


def events(path: Path) -> list[dict[str, Any]]:
    """Reads the file as Perfetto does: an array whose end may be missing."""
    return json.loads(path.read_text().rstrip().rstrip(",") + "]")


def test_file_is_a_trace_with_a_name_for_every_lane(timeline: Timeline, tmp_path: Path):
    timeline.add(SCRIPTS, "a.py", 10.0, 12.0)
    timeline.add(SCRIPTS, "b.py", 11.0, 13.5)
    timeline.add(SCRIPTS, "c.py", 12.0, 12.5)
    timeline.take()
    found = events(tmp_path / "timeline.json")
    work = [(e["name"], e["ph"], e["ts"], e["dur"], e["tid"]) for e in found if e["ph"] == "X"]
    first, second = 2000, 2001
    assert work == [
        ("a.py", "X", 10e6, 2e6, first),
        ("b.py", "X", 11e6, 2.5e6, second),
        ("c.py", "X", 12e6, 0.5e6, first),
    ]
    assert {e["tid"]: e["args"]["name"] for e in found if e["ph"] == "M"} == {first: "scripts", second: "scripts 2"}


def test_a_later_process_goes_on_in_the_same_file(tmp_path: Path):
    for start in (1.0, 2.0):
        with Timeline(tmp_path / "timeline.json") as timeline:
            timeline.add(TRAINING, "update", start, start + 0.5)
    assert [event["ts"] for event in events(tmp_path / "timeline.json") if event["ph"] == "X"] == [1e6, 2e6]


def test_what_fails_took_its_time_too(timeline: Timeline):
    with pytest.raises(KeyError), timeline.span(TRAINING, "update"):
        raise KeyError
    assert len(timeline.take()[TRAINING]) == 1
    assert timeline.take() == {}


def test_spans_of_many_threads_are_all_there_and_none_overlaps_in_its_lane(timeline: Timeline, tmp_path: Path):

    def work() -> None:
        for _ in range(50):
            with timeline.span(GENERATION, "one"):
                pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(timeline.take()[GENERATION]) == 400
    lanes = defaultdict(list)
    for event in events(tmp_path / "timeline.json"):
        if event["ph"] == "X":
            lanes[event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    assert sum(map(len, lanes.values())) == 400
    for spans in lanes.values():
        assert all(before[1] <= after[0] for before, after in zip(spans, spans[1:], strict=False))


def test_busy_seconds_of_hand_computed_spans():
    spans = [(1.0, 3.0), (2.0, 4.0), (6.0, 7.0), (2.5, 2.7)]
    assert busy_seconds(spans, 0.0, 10.0) == pytest.approx(4.0)
    assert busy_seconds(spans, 2.0, 6.5) == pytest.approx(2.5)
    assert busy_seconds([], 0.0, 1.0) == 0.0
    assert busy_seconds(spans, 8.0, 9.0) == 0.0


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)).map(sorted), max_size=8))
def test_busy_seconds_are_those_in_which_something_went_on(pairs: list[list[int]]):
    seconds = sum(any(first <= at < last for first, last in pairs) for at in range(10, 40))
    assert busy_seconds([(float(a), float(b)) for a, b in pairs], 10.0, 40.0) == pytest.approx(seconds)


def test_requests_and_runs_are_noted_and_recorded_results_are_not(toys, timeline: Timeline):
    policy = TimedPolicy(toys.policy(["nonsense"]), timeline)
    executor = TimedExecutor(toys.executor, timeline)
    toys.environment.tools = replace(toys.environment.tools, executor=executor)
    asyncio.run(policy.sample([1, 2], num_samples=3, seed=0))
    edit = toys.edit("cedar.py", "oak.py", correct=9)
    asyncio.run(toys.environment.step(toys.instance, toys.environment.start(toys.instance), edit))
    found = timeline.take()
    assert len(found[GENERATION]) == 1
    ((start, end),) = found[SCRIPTS]
    assert end - start == pytest.approx(0.5)  # what the executor says, not what it took to ask it
