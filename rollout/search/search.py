"""The loop of a search: agents act from the states that a rule chooses until the budget is spent."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rollout.environment.environment import Environment
from rollout.errors import BudgetSpent, InfrastructureError
from rollout.runtime.event_loop import gather
from rollout.sampling.episode import draw_seed
from rollout.search.rules import Rule
from rollout.search.tree import OUT_OF_CONTEXT, Node, SearchTree
from rollout.storage.journal import Journal
from rollout.types import Actor, Step
from tasks.quoting import replace_unstorable
from tasks.state import State

MAX_FAILURES = 3  # consecutive failures of the infrastructure that end a search

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Budget:
    """The limits of a search.

    Attributes:
        actions: The maximum number of actions.
        seconds: The time after which running actions are canceled, in seconds of the search without interruptions.
    """

    actions: int
    seconds: float


@dataclass(frozen=True)
class Agent:
    """An actor, and the ideas that it is given.

    Attributes:
        actor: The source of responses.
        draw_ideas: A function that returns the ideas of a history that starts from the root, given its seed.
    """

    actor: Actor
    draw_ideas: Callable[[int], Sequence[str]] = lambda seed: ()


class Search:
    """A search that goes on from the states in its journal.

    Attributes:
        tree: The states.
        end: The reason for the end of `run`: `actions`, `time`, `dollars` or `exhausted`, `` before.
    """

    def __init__(self, tree: SearchTree, environment: Environment, agent: Agent, rule: Rule, journal: Journal) -> None:
        """Make a search, and replay its journal.

        Raises:
            ValueError: If the journal belongs to another search.
        """
        self.tree, self.end = tree, ""
        self._environment, self._agent, self._rule, self._journal = environment, agent, rule, journal
        for record in journal.records:
            tree.replay(record)
        self._failures = 0

    @property
    def spent_seconds(self) -> float:
        """The time of the last state."""
        return self.tree.nodes[-1].seconds

    async def run(
        self, budget: Budget, seed: int, num_concurrent: int, progress: Callable[[Node], None] = lambda node: None
    ) -> None:
        """Act until the budget is spent, or no state is left to act from; every action is journaled when it is done.

        Args:
            budget: The limits, which include what the journal holds.
            seed: The seed of the agent's draws.
            num_concurrent: The number of actions at a time.
            progress: Called with each new state.

        Raises:
            InfrastructureError: If the infrastructure failed several times in a row.
        """
        start = time.monotonic() - self.spent_seconds
        changed = asyncio.Condition()

        async def work() -> None:
            while True:
                async with changed:
                    while (node := self._next(budget)) is None:
                        if not any(each.running for each in self.tree.nodes):
                            changed.notify_all()
                            return
                        await changed.wait()
                    draw = node.next_draw()
                    node.running.add(draw)
                try:
                    added = await self._act(node, draw, draw_seed(seed, "search", *node.draws(), draw), start)
                finally:
                    node.running.remove(draw)
                if added is not None:
                    progress(added)
                async with changed:
                    changed.notify_all()

        limit = asyncio.timeout(max(0.0, budget.seconds - self.spent_seconds))
        self.end = ""
        try:
            async with limit:
                await gather(work() for _ in range(num_concurrent))
        except TimeoutError:
            if not limit.expired():
                raise
            self.end = "time"
        except BudgetSpent as error:
            log.warning("%s", error)
            self.end = "dollars"
        self.end = self.end or ("actions" if self.tree.num_actions >= budget.actions else "exhausted")

    def _next(self, budget: Budget) -> Node | None:
        num_running = sum(len(each.running) for each in self.tree.nodes)
        return self._rule.choose(self.tree) if self.tree.num_actions + num_running < budget.actions else None

    async def _act(self, node: Node, draw: int, seed: int, start: float) -> Node | None:
        """Return the state after one action from `node`, None if the agent could not act."""
        instance = self.tree.instance
        problem = node.state.problem
        if node.parent is None:
            problem = self._environment.problem(instance, self._agent.draw_ideas(seed))
        try:
            response = await self._agent.actor.act(instance, State(problem, node.state.turns), seed)
            if response is None:
                node.end = OUT_OF_CONTEXT
                return None
            text = replace_unstorable(response.text)
            result = await self._environment.step(instance, node.snapshot, text)
        except InfrastructureError as error:
            self._failures += 1
            log.warning("an action from state %d is lost: %r", node.number, error)
            if self._failures >= MAX_FAILURES:
                raise
            return None
        self._failures = 0
        step = Step(
            response=text,
            action=result.action,
            arguments=result.arguments,
            feedback=result.feedback,
            before=node.snapshot,
            after=result.after,
            seconds=result.seconds,
            wording=response.wording,
        )
        added = self.tree.add(node, problem, step, draw, time.monotonic() - start)
        self._journal.append(self.tree.record(added))
        return added
