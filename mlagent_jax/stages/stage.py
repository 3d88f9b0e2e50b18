"""The interface of a stage, and the parts of a run that the pipeline passes to it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from mlagent_jax.configuration.schema import Config
from mlagent_jax.multihost import distributed
from mlagent_jax.run.context import RunContext
from mlagent_jax.run.policy_server import PolicyServer
from mlagent_jax.run.run_dir import RunDir
from mlagent_jax.tracking.base import Metrics, NoTracker, Tracker, with_prefix
from mlagent_jax.tracking.jsonl import JsonlTracker
from mlagent_jax.tracking.progress import Reporter
from tasks.quoting import user_path


@dataclass(frozen=True)
class StageContext:
    """The parts of a run that a stage may use.

    Attributes:
        config: The configuration of the run.
        run_dir: The directory of the run.
        reporter: Notes and progress bars.
        open_context: The run context, None if no pending stage acts, or this is not process 0.
        open_server: The policy server, None if this is not process 0.
    """

    config: Config
    run_dir: RunDir
    reporter: Reporter
    open_context: RunContext | None = None
    open_server: PolicyServer | None = None

    @property
    def run_context(self) -> RunContext:
        """Tasks, environment and event loop, for a stage that acts, on process 0."""
        assert self.open_context is not None, "only for stages that act, on process 0"
        return self.open_context

    @property
    def server(self) -> PolicyServer:
        """The policy server, launched, for a stage that samples, on process 0."""
        assert self.open_server is not None, "only on process 0"
        return self.open_server

    def open_tracker(self) -> Tracker:
        """Return the tracker that the stage reports its figures to; a context manager."""
        if not distributed.is_main():
            return NoTracker()
        return JsonlTracker(self.run_dir.metrics)

    def log_result(self, stage: str, figures: Metrics) -> None:
        """Log the figures of a stage without steps, in place of those of an earlier run of it.

        Args:
            stage: The prefix of the figures, the stage's name.
            figures: The figures, `num_trajectories` among them.
        """
        with self.open_tracker() as tracker:
            tracker.rewind(f"{stage}/num_trajectories", -1)
            tracker.log(with_prefix(stage, figures))


@runtime_checkable
class Stage(Protocol):
    """One stage of a run.

    A stage resumes from its own partial output. It imports JAX only inside its methods: processes that run scripts are
    started first, because forking after JAX has started threads is unsafe.

    Attributes:
        name: The name on the command line and of the file.
        settings: The keys and sections of the configuration that the output depends on.
        version: The version of how it makes its output and its checkpoints from the settings; those of another are not
            used.
        after: The names of the stages whose output it reads.
        outputs: The files and folders that it writes, relative to the run directory.
        acts: Whether it runs actions, which needs a run context.
        samples: Whether it samples from the policy server, which is then launched on the fine-tuned policy.
        leaves_trajectories: Whether reports about trajectories change after it.
    """

    name: ClassVar[str]
    settings: ClassVar[tuple[str, ...]]
    version: ClassVar[int] = 1
    after: ClassVar[tuple[str, ...]]
    outputs: ClassVar[tuple[str, ...]]
    acts: ClassVar[bool] = False
    samples: ClassVar[bool] = False
    leaves_trajectories: ClassVar[bool] = False

    def check(self, config: Config) -> None:
        """Raise for a setting that would otherwise fail in the middle of the run.

        Raises:
            ValueError: If the user can fix the cause.
            InfrastructureError: If something that the stage needs does not answer.
        """

    def run(self, context: StageContext) -> Mapping[str, Any]:
        """Run the stage on process 0 and return its figures, JSON values.

        A stage that trains on several processes calls `distributed.announce_stage` when the others are to join.
        """
        ...

    def follow(self, context: StageContext) -> None:
        """Take part in the stage on a process other than 0, after it was announced."""
        raise AssertionError(f"{self.name} does not train on several processes")


def endpoint_settings(section: str) -> tuple[str, ...]:
    """Return the keys of an endpoint model that affect its responses; the others affect only where and how fast."""
    return tuple(f"{section}.{key}" for key in ("kind", "model", "max_response_tokens"))


def keep_compiled_programs(run_dir: RunDir) -> None:
    """Make JAX keep compiled programs in the run directory, unless `JAX_COMPILATION_CACHE_DIR` names another place."""
    import jax

    given = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if given is None:
        jax.config.update("jax_compilation_cache_dir", str(run_dir.compiled_programs.absolute()))
    elif given.startswith("~"):
        jax.config.update("jax_compilation_cache_dir", str(user_path(given)))
