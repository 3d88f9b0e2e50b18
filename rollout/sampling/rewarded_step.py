"""One response in one state: done, and rewarded."""

import logging
from dataclasses import replace

from rollout.environment.environment import Environment
from rollout.errors import InfrastructureError
from rollout.sampling.experience import Experience, Transition
from rollout.sampling.grounding import read_grounding
from rollout.sampling.state_pool import PoolState
from rollout.types import Completion
from tasks.action import Action, is_edit, parse_response, plain_instruction
from tasks.feedback import Outcome
from tasks.reward import Rules, reward
from tasks.state import State

log = logging.getLogger(__name__)


async def rewarded_step(
    environment: Environment, state: PoolState, prompt_ids: tuple[int, ...], text: str, rules: Rules
) -> Experience:
    """Return what the response `text` earns in `state`, its completion still to be filled in."""
    unsampled = replace(unknown(state, prompt_ids), context=read_grounding(text, state.snapshot))
    try:
        result = await environment.step(state.instance, state.snapshot, text)
    except InfrastructureError as error:
        log.warning(
            "masked an action in %s at depth %d: %s: %s", state.trajectory_id, state.depth, type(error).__name__, error
        )
        return unsampled
    instruction = result.arguments["edit_instruction"] if is_edit(result.action) else ""
    plain = plain_instruction(result.action, result.arguments)
    repeated = bool(instruction) and plain in _instructions_before(state.state)
    return replace(
        unsampled,
        outcome=result.feedback.outcome,
        metric=result.feedback.metric,
        reward=reward(state.instance.task, result.feedback, state.snapshot.metric, rules, repeated),
        seconds=result.seconds,
        action=result.action,
        instruction=instruction,
        repeated=repeated,
        reached=Transition(text, result.feedback.text, result.after),
    )


def unknown(state: PoolState, prompt_ids: tuple[int, ...]) -> Experience:
    """Return an action in `state` of which nothing is known."""
    return Experience(
        trajectory_id=state.trajectory_id,
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
        context={},
    )


def with_completion(outcome: Experience, sample: int, completion: Completion) -> Experience:
    """Return the action with the tokens that the policy sampled for it."""
    return replace(
        outcome,
        sample=sample,
        response_ids=completion.token_ids,
        logprobs=completion.logprobs,
        policy_version=completion.policy_version,
        finish_reason=completion.finish_reason,
    )


def _instructions_before(state: State) -> set[str]:
    """Return the edit instructions that the state's turns hold, in plain letters."""
    actions = (parse_response(turn.response) for turn in state.turns)
    edits = [action for action in actions if isinstance(action, Action) and action.spec.is_edit]
    return {plain_instruction(action.name, action.arguments) for action in edits}
