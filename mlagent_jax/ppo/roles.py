"""The two roles of a process in a PPO update: the leader acts, measures and serves weights; followers only receive."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mlagent_jax.multihost import preemption
from mlagent_jax.multihost.distributed import from_main, only_on_leader
from mlagent_jax.ppo.accounting import PrefixCacheMeter, Stopwatch
from mlagent_jax.ppo.learner import Learner
from mlagent_jax.ppo.prefetcher import RolloutPrefetcher
from mlagent_jax.weight_sync import WeightSync, WeightWriter
from rollout.inference.canary import Canary
from rollout.runtime.event_loop import EventLoopThread
from rollout.sampling.experience import Experience, TrainingSample, begun_share, reward_figures
from rollout.sampling.grounding import grounding_shares


@dataclass(frozen=True)
class UpdateSamples:
    """The samples that every process learns from in one update.

    Attributes:
        samples: The responses whose reward is known.
        begun_share: The share of the planned rollouts that were begun.
    """

    samples: tuple[TrainingSample, ...]
    begun_share: float


@runtime_checkable
class Role(Protocol):
    """The interface that the training loop needs from a process, besides its learner."""

    def begin(self, update: int, learner: Learner) -> None:
        """Make the server sample from the learner's policy, and start measuring at `update`."""
        ...

    def take(self, update: int) -> UpdateSamples | None:
        """Return the samples of an update, or None if a SIGTERM ended its actions; finished ones are in the journal."""
        ...

    def serve(self, learner: Learner) -> None:
        """Make the server sample from the learner's policy, unless it has this version already."""
        ...

    def phase(self, name: str, resource: str | None = None) -> AbstractContextManager[None]:
        """Time a phase of the update, and record it as work of `resource` if one is given."""
        ...

    def figures(self) -> Mapping[str, float]:
        """End the measurement of an update and return its figures, which only the leader has."""
        ...


class _WeightServing(ABC):
    """Serve the learner's weights only if the server has another version; all processes decide alike."""

    _version: int | None = None

    def begin(self, update: int, learner: Learner) -> None:
        """See `Role.begin`. Verify a server that was started on the fine-tuned policy instead of sending it again."""
        if update == 0 and self._is_serving(learner.version):
            self._version = learner.version
        self.serve(learner)

    def serve(self, learner: Learner) -> None:
        """See `Role.serve`."""
        if learner.version != self._version:
            self._send(learner)
            self._version = learner.version

    @abstractmethod
    def _is_serving(self, version: int) -> bool: ...

    @abstractmethod
    def _send(self, learner: Learner) -> None: ...


class Leader(_WeightServing):
    """Process 0: roll out the policy, send the samples to the followers, serve weights, and measure."""

    def __init__(
        self,
        event_loop: EventLoopThread,
        prefetcher: RolloutPrefetcher,
        sync: WeightSync,
        started_on: tuple[Path, Canary],
        stopwatch: Callable[[], Stopwatch],
        prefix_cache: Callable[[], PrefixCacheMeter],
        counts: Callable[[], Mapping[str, float]],
    ) -> None:
        """Store the parts of the leader.

        Args:
            event_loop: The thread of the client and the rollouts.
            prefetcher: The rollouts of all updates.
            sync: The sender of weights to the server.
            started_on: The directory that a server of this run is started on, the fine-tuned policy, and its canary.
            stopwatch: A function that starts the measurement of times.
            prefix_cache: A function that starts the measurement of the server's prefix cache.
            counts: A function that returns the counts of scripts and of the server's restarts since its last call.
        """
        self._event_loop, self._prefetcher, self._sync = event_loop, prefetcher, sync
        self._started_on = started_on
        self._start = stopwatch, prefix_cache
        self._counts = counts
        self._experiences: list[Experience] = []

    def begin(self, update: int, learner: Learner) -> None:
        """See `Role.begin`."""
        super().begin(update, learner)
        self._prefetcher.skip(update)
        self._counts()
        stopwatch, prefix_cache = self._start
        self._stopwatch, self._prefix_cache = stopwatch(), prefix_cache()

    def take(self, update: int) -> UpdateSamples | None:
        """See `Role.take`."""
        return from_main(partial(self._act, update), _encode, _decode)

    def _act(self, update: int) -> UpdateSamples | None:
        try:
            with preemption.raise_on_sigterm():
                self._experiences = self._prefetcher.take(update)
        except preemption.Preempted:
            return None
        known = (each.training_sample() for each in self._experiences if each.reward is not None)
        return UpdateSamples(tuple(known), begun_share(self._experiences))

    def _is_serving(self, version: int) -> bool:
        folder, canary = self._started_on
        is_serving = partial(self._sync.is_serving, folder, version, canary)
        return from_main(lambda: self._event_loop.run(is_serving()))

    def _send(self, learner: Learner) -> None:
        self._sync.send(self._event_loop, learner.model(), learner.version)

    def phase(self, name: str, resource: str | None = None) -> AbstractContextManager[None]:
        """See `Role.phase`."""
        return self._stopwatch.phase(name, resource)

    def figures(self) -> dict[str, float]:
        """See `Role.figures`."""
        return {
            **rollout_figures(self._experiences),
            **self._stopwatch.lap(self._experiences),
            **self._prefix_cache.lap(),
            **self._counts(),
        }


class Follower(_WeightServing):
    """Every process but 0: receive samples, and write its part of the weights."""

    def __init__(self, writer: WeightWriter) -> None:
        """Store the writer of weights."""
        self._writer = writer

    def take(self, update: int) -> UpdateSamples | None:
        """See `Role.take`."""
        del update
        return from_main(only_on_leader, decode=_decode)

    def _is_serving(self, version: int) -> bool:
        del version
        return from_main(only_on_leader)

    def _send(self, learner: Learner) -> None:
        self._writer.follow(learner.model())

    def phase(self, name: str, resource: str | None = None) -> AbstractContextManager[None]:
        """Time nothing; see `Role.phase`."""
        del name, resource
        return nullcontext()

    def figures(self) -> dict[str, float]:
        """Return no figures; see `Role.figures`."""
        return {}


def rollout_figures(experiences: Sequence[Experience]) -> dict[str, float]:
    """Return the rewards, outcomes and grounding of the actions of an update."""
    figures = {f"reward/{name}": value for name, value in reward_figures(experiences).items()}
    begun = [experience for experience in experiences if not experience.cut]
    shares = grounding_shares(experience.grounding for experience in begun)
    figures |= {f"context/{name}": value for name, value in shares.items()}
    from_policy = sum(experience.origin == "policy" for experience in begun)
    return figures | {"reward/actions": len(begun), "states/own_share": from_policy / len(begun)}


def _encode(update: UpdateSamples | None) -> dict[str, Any] | None:
    return None if update is None else asdict(update)


def _decode(update: Mapping[str, Any] | None) -> UpdateSamples | None:
    if update is None:
        return None
    lists = ("prompt_ids", "response_ids", "logprobs")
    samples = (
        TrainingSample(**{**sample, **{name: tuple(sample[name]) for name in lists}}) for sample in update["samples"]
    )
    return UpdateSamples(tuple(samples), update["begun_share"])
