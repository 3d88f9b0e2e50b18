"""Everything that a search and its conclusion need."""

import time
from dataclasses import dataclass
from pathlib import Path

from mlagent_jax.solving.agents import Team
from mlagent_jax.solving.options import SolveLayout, SolveOptions
from mlagent_jax.solving.problem import Problem
from rollout.environment.environment import Environment
from rollout.runtime.event_loop import EventLoopThread
from rollout.search.tree import SearchTree


@dataclass(frozen=True)
class Session:
    """An open search.

    Attributes:
        options: What to solve, with which agent, and within which budget.
        layout: The paths of the result.
        problem: The problem.
        tree: The states that were reached.
        environment: The environment in which scripts run.
        team: The agent and the coder.
        event_loop: The thread whose event loop runs them.
        python: The interpreter of the task environment.
        began: The time when this process began, by the monotonic clock.
    """

    options: SolveOptions
    layout: SolveLayout
    problem: Problem
    tree: SearchTree
    environment: Environment
    team: Team
    event_loop: EventLoopThread
    python: Path
    began: float

    @property
    def seconds(self) -> float:
        """The time since this process began."""
        return time.monotonic() - self.began

    @property
    def seconds_left(self) -> float:
        """What is left of the time of the whole command; earlier processes count with their searches."""
        earlier = max(0.0, self.tree.nodes[-1].seconds - self.seconds)
        return 60 * self.options.minutes - earlier - self.seconds
