"""The environment for any agent: one task, in which it acts by text; `mlagent_jax.make` opens one."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from rollout.environment.environment import Environment
from rollout.runtime.event_loop import EventLoopThread, gather
from rollout.types import Snapshot
from tasks.action import ends_trajectory, plain_instruction
from tasks.prompt import Message, messages
from tasks.quoting import replace_unstorable
from tasks.reward import Rules, reward
from tasks.state import State
from tasks.task import Instance, Task, draw_instance


@dataclass(frozen=True)
class EnvState:
    """A state of an episode.

    Attributes:
        instance: The task under the names of the episode.
        history: The problem, the responses and the feedback so far.
        snapshot: The workspace and the scores; an agent must not read the hidden ones.
        system: The system message.
        instructions: The plain instructions of the edits so far.
        end: Why the episode is over, `final_answer` or `step_limit`; `` if it goes on.
    """

    instance: Instance
    history: State
    snapshot: Snapshot
    system: str
    instructions: frozenset[str] = frozenset()
    end: str = ""

    @property
    def messages(self) -> list[Message]:
        """The chat whose next message is the agent's."""
        return messages(self.history, self.system)

    @property
    def done(self) -> bool:
        """Whether the episode is over."""
        return bool(self.end)


@dataclass(frozen=True)
class EnvStep:
    """The result of one response.

    Attributes:
        state: The next state.
        feedback: The text that the agent reads next, which is the last of the state's messages.
        reward: The reward of the action (`tasks.reward`).
        done: Whether the episode is over.
        info: What an agent must not read: `action` and `arguments`, `outcome`, `repeated`, the hidden score `metric`
            and the printed score `validation` of the script that ran, None if none did, and `seconds`.
    """

    state: EnvState
    feedback: str
    reward: float
    done: bool
    info: Mapping[str, Any]


class Env:
    """One task, in which an agent acts by text; a context manager, because scripts run in sandboxes.

    States are immutable, so an agent can act from any state that the environment returned, as often as it likes.

    Attributes:
        task: The task.
        state: The state that `step` acts from if none is given; None before the first `reset`.
    """

    def __init__(
        self,
        task: Task,
        environment: Environment,
        loop: EventLoopThread,
        *,
        max_steps: int,
        rules: Rules,
        system: str,
        resources: ExitStack,
    ) -> None:
        """Make an environment; `mlagent_jax.make` is the usual way.

        Args:
            task: The task.
            environment: The environment in which responses are applied.
            loop: The thread whose event loop runs scripts.
            max_steps: The maximum number of actions of an episode.
            rules: The rules of the reward.
            system: The system message.
            resources: What `close` closes.
        """
        self.task = task
        self._environment, self._loop, self._resources = environment, loop, resources
        self._max_steps, self._rules, self._system = max_steps, rules, system
        self.state: EnvState | None = None

    def reset(self, seed: int = 0) -> EnvState:
        """Begin an episode and return its first state; the seed draws the names of the project and its files."""
        instance = draw_instance(self.task, random.Random(f"{seed}/names"))
        problem = State(self._environment.problem(instance))
        self.state = EnvState(instance, problem, self._environment.start(instance), self._system)
        return self.state

    def step(self, response: str, state: EnvState | None = None) -> EnvStep:
        """Apply a response and return the result. A mistake of the agent is feedback, not an exception.

        Args:
            response: The whole text of the agent's response.
            state: The state to which it is applied; None for the environment's own, which becomes the next one.

        Raises:
            ValueError: If the episode is over or was not begun.
            InfrastructureError: If the coder or the sandbox failed twice. The state is as before.
        """
        if state is not None:
            return self._loop.run(self._step(response, state))
        if self.state is None:
            raise ValueError("no episode was begun; call reset first")
        step = self._loop.run(self._step(response, self.state))
        self.state = step.state
        return step

    async def step_async(self, response: str, state: EnvState) -> EnvStep:
        """Apply a response to a state and return the result, in any event loop; raises like `step`."""
        return await asyncio.wrap_future(self._loop.submit(self._step(response, state)))

    def step_many(self, pairs: Sequence[tuple[str, EnvState]]) -> list[EnvStep]:
        """Apply responses, each to its state, and return the results in order; raises like `step`.

        As many scripts run at a time as there are slots.
        """
        return self._loop.run(gather(self._step(response, state) for response, state in pairs))

    def score(self, state: EnvState) -> float:
        """Return the hidden score of the last valid submission, that of the initial script if there is none."""
        found = state.snapshot.last_submission
        return self.task.m_init if found is None else found

    def gain(self, state: EnvState) -> float:
        """Return (m - m_init) / (m_best - m_init) for the hidden score m of a state."""
        return self.task.gain(self.score(state))

    def close(self) -> None:
        """End every script, and remove the folder if it is temporary."""
        self._resources.close()

    async def _step(self, response: str, state: EnvState) -> EnvStep:
        if state.done:
            raise ValueError(f"the episode is over ({state.end}); call reset, or pass an earlier state")
        text = replace_unstorable(response)
        result = await self._environment.step(state.instance, state.snapshot, text)
        instruction = plain_instruction(result.action, result.arguments)
        repeated = bool(instruction) and instruction in state.instructions
        history = state.history.then(text, result.feedback.text)
        end = "step_limit" if len(history.turns) >= self._max_steps else ""
        after = replace(
            state,
            history=history,
            snapshot=result.after,
            instructions=state.instructions | {instruction} - {""},
            end="final_answer" if ends_trajectory(result.action) else end,
        )
        earned = reward(self.task, result.feedback, state.snapshot.metric, self._rules, repeated)
        info = {
            "action": result.action,
            "arguments": dict(result.arguments),
            "outcome": result.feedback.outcome.value,
            "repeated": repeated,
            "metric": result.feedback.metric,
            "validation": result.feedback.validation,
            "seconds": result.seconds,
        }
        return EnvStep(after, result.feedback.text, earned, after.done, info)

    def __enter__(self) -> "Env":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
