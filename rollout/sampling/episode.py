"""Run a whole episode: an actor and the environment alternate until a limit is reached."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rollout.environment.environment import Environment, StepResult
from rollout.tokenizer.chat import ChatTokenizer
from rollout.types import Actor, Policy, Response, Snapshot, Step, Trajectory
from tasks.action import ends_trajectory
from tasks.quoting import replace_unstorable
from tasks.state import State
from tasks.task import Instance


@dataclass(frozen=True)
class PolicyActor:
    """A policy as an actor: render the state, sample one response, and decode it.

    Attributes:
        policy: The policy to sample from.
        tokenizer: The policy's tokenizer.
        context_limit: The maximum number of tokens of a prompt and its response together.
        max_response_tokens: The maximum number of tokens of a response; a state that leaves less room does not fit.
    """

    policy: Policy
    tokenizer: ChatTokenizer
    context_limit: int
    max_response_tokens: int

    async def act(self, instance: Instance, state: State, seed: int) -> Response | None:
        """Return one sampled response, or None if it does not fit the context; raises ServerError like the policy."""
        del instance  # a policy sees only the state
        prompt_ids = await asyncio.to_thread(self.tokenizer.prompt_ids, state)  # a long state would hold up the others
        if len(prompt_ids) + self.max_response_tokens > self.context_limit:
            return None
        (completion,) = await self.policy.sample(prompt_ids, num_samples=1, seed=seed)
        return Response(self.tokenizer.decode(completion.token_ids), completion=completion)


def draw_seed(*parts: object) -> int:
    """Return a 31-bit seed that depends only on `parts`, such as the seed of a run, a purpose and an index."""
    return random.Random("/".join(map(str, parts))).getrandbits(31)


async def run_episode(
    environment: Environment,
    actor: Actor,
    instance: Instance,
    *,
    trajectory_id: str,
    seed: int,
    max_steps: int,
    max_seconds: float,
    ideas: Sequence[str] = (),
) -> Trajectory:
    """Return one finished episode.

    Args:
        environment: The environment that executes actions.
        actor: The source of responses.
        instance: The task under the names of the episode.
        trajectory_id: The id of the episode in its collection.
        seed: The seed of all of the actor's draws.
        max_steps: The maximum number of actions.
        max_seconds: The time after the beginning of the episode when the last action may start, in seconds.
        ideas: Ideas that the actor reads in the problem; the recorded problem is without them.

    Raises:
        InfrastructureError: If the infrastructure failed; the episode is lost and can be run again.
    """
    began = time.monotonic()
    state = State(environment.problem(instance, ideas))
    snapshot = environment.start(instance)
    steps: list[Step] = []
    end = "step_limit"
    while len(steps) < max_steps:
        if time.monotonic() - began > max_seconds:
            end = "time_limit"
            break
        response = await actor.act(instance, state, draw_seed(seed, "step", len(steps)))
        if response is None:
            end = "context_limit"
            break
        text = replace_unstorable(response.text)
        result = await environment.step(instance, snapshot, text)
        steps.append(_step(text, response.wording, snapshot, result))
        state = state.then(text, result.feedback.text)
        snapshot = result.after
        if ends_trajectory(result.action):
            end = "final_answer"
            break
    return Trajectory(
        trajectory_id=trajectory_id,
        task=instance.task.name,
        seed=seed,
        names=instance.names,
        problem=environment.problem(instance),
        ideas=tuple(ideas),
        steps=tuple(steps),
        end=end,
    )


def _step(text: str, wording: str, before: Snapshot, result: StepResult) -> Step:
    return Step(
        response=text,
        action=result.action,
        arguments=result.arguments,
        feedback=result.feedback,
        before=before,
        after=result.after,
        seconds=result.seconds,
        wording=wording,
    )
