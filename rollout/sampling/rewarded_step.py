"""Apply one response to one state and reward it."""

import logging
from dataclasses import replace

from rollout.environment.environment import Environment
from rollout.errors import InfrastructureError
from rollout.sampling.experience import Experience, Transition
from rollout.sampling.grounding import read_grounding
from rollout.sampling.state_pool import PoolState
from rollout.types import Completion
from tasks.action import is_edit, plain_instruction
from tasks.feedback import Outcome
from tasks.response import parse_response
from tasks.reward import Rules, reward

log = logging.getLogger(__name__)


async def rewarded_step(
    environment: Environment, state: PoolState, prompt_ids: tuple[int, ...], text: str, rules: Rules
) -> Experience:
    """Return the outcome of the response `text` in `state`, without its tokens (see `with_completion`).

    If the infrastructure failed, the reward is None, the outcome `infrastructure`, and `failure` says how.
    """
    response = parse_response(text)
    masked = replace(unknown(state, prompt_ids), grounding=read_grounding(response, state.snapshot))
    try:
        result = await environment.apply(state.instance, state.snapshot, response)
    except InfrastructureError as error:
        failure = f"{type(error).__name__}: {error}"
        log.warning("masked an action in %s at depth %d: %s", state.trajectory_id, state.depth, failure)
        return replace(masked, failure=failure)
    instruction = result.arguments["edit_instruction"] if is_edit(result.action) else ""
    plain = plain_instruction(result.action, result.arguments) if is_edit(result.action) else None
    repeated = bool(instruction) and plain in state.plain_instructions
    return replace(
        masked,
        outcome=result.feedback.outcome,
        metric=result.feedback.metric,
        reward=reward(state.instance.task, result.feedback, state.snapshot.metric, rules, repeated),
        seconds=result.seconds,
        action=result.action,
        instruction=instruction,
        repeated=repeated,
        reached=Transition(text, result.feedback.text, result.after, plain),
    )


def unknown(state: PoolState, prompt_ids: tuple[int, ...]) -> Experience:
    """Return an action in `state` about which nothing is known."""
    return Experience(
        trajectory_id=state.trajectory_id,
        origin=state.origin,
        depth=state.depth,
        task=state.instance.task.name,
        sample=0,
        prompt_ids=prompt_ids,
        response_ids=(),
        logprobs=(),
        policy_version=0,
        finish_reason="",
        outcome=Outcome.INFRASTRUCTURE,
        metric=None,
        reward=None,
        seconds=0.0,
        action="",
        instruction="",
        repeated=False,
        grounding={},
    )


def with_completion(experience: Experience, completion: Completion) -> Experience:
    """Return the action with the tokens that the policy sampled for it."""
    return replace(
        experience,
        response_ids=completion.token_ids,
        logprobs=completion.logprobs,
        policy_version=completion.policy_version,
        finish_reason=completion.finish_reason,
    )


def completion_of(experience: Experience) -> Completion:
    """Return the response of an action as the policy sampled it."""
    return Completion(
        token_ids=experience.response_ids,
        logprobs=experience.logprobs,
        policy_version=experience.policy_version,
        finish_reason=experience.finish_reason,
    )
