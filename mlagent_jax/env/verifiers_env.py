"""The environment of a task for verifiers, so that its users, such as prime-rl, can train on our tasks.

    from mlagent_jax.env.verifiers_env import load_environment
    env = load_environment("house_price")

This needs the extra `verifiers`: a version that has `MultiTurnEnv`.
"""

from pathlib import Path
from typing import Any

import datasets
import verifiers as vf  # pyright: ignore[reportMissingImports]

from mlagent_jax.env.env import Env
from mlagent_jax.env.make import make
from rollout.errors import InfrastructureError

EPISODE = "episode"  # key of a rollout's state that holds the state of our environment


class TaskEnvironment(vf.MultiTurnEnv):  # pyright: ignore[reportUntypedBaseClass]
    """A task as a multi-turn environment: each turn is an action, and the reply of the environment is its feedback.

    The reward of a rollout is the gain of its last valid submission, 0 without one; `mean_step_reward` is the mean of
    the step-wise rewards, which are also those of the steps in `state["trajectory"]`.
    """

    def __init__(self, env: Env, num_episodes: int, **more: Any) -> None:
        """Make the environment.

        Args:
            env: The open environment of the task, which also limits the actions of an episode.
            num_episodes: The number of episodes in the dataset, each with other names of files.
            more: Further arguments of `MultiTurnEnv`.
        """
        rows = [
            {"prompt": env.reset(seed).messages, "answer": "", "info": {"seed": seed}} for seed in range(num_episodes)
        ]
        rubric = vf.Rubric(funcs=[self.gain, self.mean_step_reward], weights=[1.0, 0.0])
        super().__init__(
            dataset=datasets.Dataset.from_list(rows),
            rubric=rubric,
            env_id=f"mlagent-{env.task.name}",
            **more,
        )
        self.env = env

    async def setup_state(self, state: Any) -> Any:
        """Begin the episode of a row of the dataset."""
        state[EPISODE] = self.env.reset(state["info"]["seed"])
        state["step_rewards"] = []
        return state

    async def env_response(self, messages: Any, state: Any, **more: Any) -> Any:
        """Return the feedback to the last message, which ends the rollout if the episode is over."""
        reply = await self._act(messages[-1], state)
        if state[EPISODE].done:
            state["final_env_response"] = reply
        return reply

    async def _act(self, message: Any, state: Any) -> list[Any]:
        """Act by one message, and return the feedback as messages."""
        content = message["content"] if isinstance(message, dict) else message.content
        try:
            step = await self.env.step_async(str(content or ""), state[EPISODE])
        except InfrastructureError as error:
            raise vf.InfraError(str(error)) from error
        state[EPISODE] = step.state
        state["step_rewards"].append(step.reward)
        state["trajectory"][-1]["reward"] = step.reward
        return [vf.UserMessage(content=step.feedback)]

    async def gain(self, state: Any) -> float:
        """Return the gain of the last valid submission."""
        return self.env.gain(state[EPISODE]) if EPISODE in state else 0.0

    async def mean_step_reward(self, state: Any) -> float:
        """Return the mean of the rewards of the actions."""
        rewards = state.get("step_rewards", [])
        return sum(rewards) / len(rewards) if rewards else 0.0


def load_environment(
    task: str | Path = "house_price", num_episodes: int = 64, max_steps: int = 15, **options: Any
) -> TaskEnvironment:
    """Return the environment of a task for verifiers.

    Args:
        task: The name of a task, or the folder of one.
        num_episodes: The number of episodes in the dataset.
        max_steps: The maximum number of actions of an episode.
        options: Further arguments of `mlagent_jax.make`, such as `coder`, `slots` or `folder`.
    """
    return TaskEnvironment(make(task, max_steps=max_steps, **options), num_episodes)
