"""When the leader sends weights, what it measures, and what followers receive."""

import json
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from mlagent_jax.ppo import roles
from mlagent_jax.ppo.accounting import PrefixCacheMeter, Stopwatch
from mlagent_jax.ppo.learner import Learner
from mlagent_jax.ppo.prefetcher import RolloutPrefetcher
from mlagent_jax.ppo.roles import Follower, Leader, UpdateSamples
from mlagent_jax.weight_sync import WeightSync
from rollout.inference.answers import PrefixCacheStats
from rollout.inference.canary import Canary
from rollout.runtime.event_loop import EventLoopThread
from rollout.runtime.timeline import Timeline
from rollout.sampling.experience import Experience, TrainingSample
from rollout.sampling.grounding import FACTS

CANARY = Canary([1, 2], [-1.0], 0.1)


class VersionedLearner(Learner):
    """A learner that has a version and nothing else."""

    def __init__(self, version: int = 0) -> None:
        self.version = version

    def model(self) -> Any:
        return None


class RecordingSync(WeightSync):
    """Records the versions that are sent, and counts the parts that followers do."""

    def __init__(self, started_on_policy: bool) -> None:
        self.started_on_policy = started_on_policy
        self.followed = 0
        self.given: list[int] = []

    def send(self, event_loop: EventLoopThread, model: Any, version: int) -> None:
        self.given.append(version)

    def follow(self, model: Any) -> None:
        self.followed += 1

    async def is_serving(self, folder: Path, version: int, canary: Canary) -> bool:
        return self.started_on_policy and version == 0 and canary is CANARY


class Recorded(RolloutPrefetcher):
    """Gives the same experiences for every update."""

    def __init__(self, experiences: list[Experience]) -> None:
        self.experiences = experiences

    def skip(self, num_updates: int) -> None:
        pass

    def take(self, update: int) -> list[Experience]:
        return self.experiences


@pytest.fixture
def make_leader(tmp_path: Path) -> Iterator[Callable[..., tuple[Leader, RecordingSync]]]:
    with EventLoopThread() as event_loop, Timeline(tmp_path / "timeline.json") as timeline:

        def make(
            started_on_policy: bool = True, experiences: list[Experience] | None = None
        ) -> tuple[Leader, RecordingSync]:
            sync = RecordingSync(started_on_policy)
            meter = PrefixCacheMeter(lambda: PrefixCacheStats(0, 0))
            prefetcher = Recorded(experiences or [])
            leader = Leader(
                event_loop,
                prefetcher,
                sync,
                (tmp_path, CANARY),
                lambda: Stopwatch(timeline),
                lambda: meter,
                lambda: {"scripts": 1.0},
            )
            return leader, sync

        yield make


def test_a_fresh_server_is_verified_and_gets_weights_only_when_they_change(make_leader: Callable) -> None:
    leader, sync = make_leader()
    learner = VersionedLearner()
    leader.begin(0, learner)
    leader.serve(learner)  # only the critic learned
    assert sync.given == []
    learner.version = 1
    leader.serve(learner)
    leader.serve(learner)
    assert (sync.followed, sync.given) == (0, [1])


@pytest.mark.parametrize(("update", "version", "started_on_policy"), [(0, 0, False), (3, 1, True), (1, 0, True)])
def test_another_server_and_a_resumed_run_get_the_weights(
    make_leader: Callable, update: int, version: int, started_on_policy: bool
) -> None:
    leader, sync = make_leader(started_on_policy)
    leader.begin(update, VersionedLearner(version))
    assert sync.given == [version]


def test_a_follower_writes_its_part_whenever_the_leader_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_serving, expected in ((True, 0), (False, 1)):
        monkeypatch.setattr(roles, "from_main", lambda *_, told=is_serving, **__: told)
        writer, learner = RecordingSync(False), VersionedLearner()
        follower = Follower(writer)
        follower.begin(0, learner)
        assert writer.followed == expected
        learner.version = 1
        follower.serve(learner)
        follower.serve(learner)
        assert (writer.followed, writer.given) == (expected + 1, [])


def test_followers_receive_what_they_learn_from_and_nothing_else(
    make_leader: Callable, make_experience: Callable[..., Experience], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []

    def from_main(work: Callable[[], Any], encode: Callable, decode: Callable) -> Any:
        sent.append(json.dumps(encode(work())))
        return decode(json.loads(sent[-1]))

    grounding = dict.fromkeys(FACTS)
    made = make_experience([1, 2], [3], 0.1), make_experience([1], [4, 5], None)
    experiences = [replace(each, grounding=grounding) for each in made]
    leader, _ = make_leader(experiences=experiences)
    leader.begin(0, VersionedLearner())
    monkeypatch.setattr(roles, "from_main", from_main)
    assert leader.take(0) == UpdateSamples((experiences[0].training_sample(),), 1.0)
    (sample,) = json.loads(sent[0])["samples"]
    assert set(sample) == {field.name for field in fields(TrainingSample)}
    figures = leader.figures()
    assert (figures["reward/actions"], figures["reward/masked_share"], figures["scripts"]) == (2, 0.5, 1.0)
