"""Step-wise rollouts: several single actions from each of a batch of states, each done and rewarded."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rollout.background import gather
from rollout.chat import ChatTokenizer
from rollout.context_reading import read_context
from rollout.episode import draw_seed
from rollout.errors import CorruptRecord, InfrastructureError
from rollout.journal import Journal
from rollout.state_pool import PoolState
from rollout.step import Environment
from rollout.types import Actor, Completion, Policy, Snapshot
from tasks.action import EDIT, Action, parse_response
from tasks.feedback import Outcome
from tasks.reward import PAPER, Rules, reward
from tasks.state import State

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reached:
    """Where an action led.

    Attributes:
        response: the action's whole text.
        feedback: the environment's answer to it.
        after: what the environment goes on from.
    """

    response: str
    feedback: str
    after: Snapshot


@dataclass(frozen=True)
class Experience:
    """One action from one state and what it earned.

    Attributes:
        trajectory_id: the trajectory whose prefix the state is.
        depth: turns of the state.
        task: the task's name.
        sample: which of the state's responses this is.
        prompt_ids: the state as tokens.
        response_ids: the response as sampled, its end token included if it has one.
        logprobs: the sampler's, one per response token.
        policy_version: the weights that wrote it.
        finish_reason: `stop` or `length`.
        outcome: what became of it; `infrastructure` where nothing is known.
        metric: hidden score of the submission its run left.
        reward: None where it is masked because nothing is known.
        seconds: wall clock in coder and script, 0 for a recorded result.
        action: the action's name, `` if invalid.
        instruction: the edit instruction, `` for other actions.
        repeated: whether the state's turns hold the same edit instruction already.
        context: which facts of the state the response repeats rightly (`rollout.context_reading`).
        reached: where it led; None where nothing is known.
    """

    trajectory_id: str
    depth: int
    task: str
    sample: int
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    policy_version: int
    finish_reason: str
    outcome: Outcome
    metric: float | None
    reward: float | None
    seconds: float
    action: str
    instruction: str
    repeated: bool
    context: Mapping[str, bool | None]
    reached: Reached | None = None


async def roll_out(
    environment: Environment,
    policy: Policy,
    tokenizer: ChatTokenizer,
    states: Sequence[PoolState],
    *,
    num_samples: int,
    seed: int,
    update: int = 0,
    rules: Rules = PAPER,
    journal: Journal | None = None,
) -> list[Experience]:
    """Returns `num_samples` experiences of each state, in the order of states, then samples.

    Responses that are equal in one state are done once. An action whose infrastructure failed is masked: its reward
    is None. With a journal every finished action is appended first, and those that it has for this update are taken
    from it, unless all of them are masked; what is missing is sampled anew with the same seeds.

    Raises:
        ServerError: when the policy does not answer.
        CorruptRecord: where the journal's actions of this update are of other states.
    """
    recorded: dict[int, dict[int, Experience]] = defaultdict(dict)
    prompts = [tuple(tokenizer.prompt_ids(state.state)) for state in states]
    for record in journal.records if journal else ():
        if record["update"] == update:
            index = record["state"]
            experience = from_record(record["experience"], prompts[index] if index < len(states) else ())
            if index >= len(states) or not _is_of(experience, states[index]):
                raise CorruptRecord(
                    f"{journal.path if journal else ''} holds actions of other states for update {update}; "
                    "remove it to roll the update out again"
                )
            recorded[index][experience.sample] = experience
    if all(each.reward is None for done in recorded.values() for each in done.values()):
        recorded.clear()  # nothing is known of any: whatever was wrong then, all are tried again

    async def act_in(index: int) -> list[Experience]:
        done = recorded[index]
        if len(done) < num_samples:
            state, prompt_ids = states[index], prompts[index]
            completions = await policy.sample(
                prompt_ids, num_samples=num_samples, seed=draw_seed(seed, "action", update, index)
            )
            missing: dict[str, list[int]] = defaultdict(list)
            for sample, completion in enumerate(completions):
                if sample not in done:
                    missing[tokenizer.decode(completion.token_ids)].append(sample)

            async def do(text: str, samples: list[int]) -> None:
                outcome = await _do(environment, state, prompt_ids, text, rules)
                for sample in samples:
                    done[sample] = _with_completion(outcome, sample, completions[sample])
                    if journal:
                        record = to_record(done[sample])
                        journal.append({"update": update, "state": index, "experience": record})

            await gather(do(text, samples) for text, samples in missing.items())
        return [done[sample] for sample in range(num_samples)]

    batches = await gather(act_in(index) for index in range(len(states)))
    return [experience for batch in batches for experience in batch]


async def act_once(
    environment: Environment,
    actor: Actor,
    states: Sequence[PoolState],
    *,
    num_samples: int,
    seed: int,
    rules: Rules = PAPER,
) -> list[Experience]:
    """Returns `num_samples` experiences of each state by an actor that is no policy, such as a baseline; no tokens.

    Raises:
        ExpertError: when an actor behind an endpoint does not answer.
    """

    async def act(index: int, sample: int) -> Experience:
        state = states[index]
        response = await actor.act(state.instance, state.state, draw_seed(seed, "action", index, sample))
        text = response.text if response else ""
        return replace(await _do(environment, state, (), text, rules), sample=sample)

    return await gather(act(index, sample) for index in range(len(states)) for sample in range(num_samples))


def reward_figures(experiences: Sequence[Experience]) -> dict[str, float]:
    """Returns the mean reward, that of edits that ran, and the share of each outcome and of masked actions.

    Means and shares are over the actions that are not masked; `edit_mean` is missing where no edit ran.
    """
    known = [experience for experience in experiences if experience.reward is not None]
    figures = {"masked_share": 1.0 - len(known) / max(len(experiences), 1)}
    if not known:
        return figures
    rewards = [experience.reward or 0.0 for experience in known]
    edits = [value for value, experience in zip(rewards, known, strict=True) if experience.outcome is Outcome.EDIT]
    figures["mean"] = sum(rewards) / len(rewards)
    if edits:
        figures["edit_mean"] = sum(edits) / len(edits)
    figures["repeated_share"] = sum(experience.repeated for experience in known) / len(known)
    for outcome in Outcome:
        if outcome is not Outcome.INFRASTRUCTURE:
            num = sum(experience.outcome is outcome for experience in known)
            figures[f"{outcome.value}_share"] = num / len(known)
    return figures


async def _do(
    environment: Environment, state: PoolState, prompt_ids: tuple[int, ...], text: str, rules: Rules
) -> Experience:
    """Returns what the response `text` earns in `state`, its completion still to be filled in."""
    unsampled = Experience(
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
        context=read_context(text, state.snapshot),
    )
    try:
        result = await environment.step(state.instance, state.snapshot, text)
    except InfrastructureError as error:
        log.warning(
            "masked an action in %s at depth %d: %s: %s", state.trajectory_id, state.depth, type(error).__name__, error
        )
        return unsampled
    instruction = result.arguments["edit_instruction"] if result.action == EDIT else ""
    repeated = bool(instruction) and _plain(instruction) in _instructions_before(state.state)
    return replace(
        unsampled,
        outcome=result.feedback.outcome,
        metric=result.feedback.metric,
        reward=reward(state.instance.task, result.feedback, state.snapshot.metric, rules, repeated),
        seconds=result.seconds,
        action=result.action,
        instruction=instruction,
        repeated=repeated,
        reached=Reached(text, result.feedback.text, result.after),
    )


def _instructions_before(state: State) -> set[str]:
    """Returns the edit instructions that the state's turns hold, in plain letters."""
    actions = (parse_response(turn.response) for turn in state.turns)
    edits = [action for action in actions if isinstance(action, Action) and action.name == EDIT]
    return {_plain(action.arguments["edit_instruction"]) for action in edits}


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _with_completion(outcome: Experience, sample: int, completion: Completion) -> Experience:
    return replace(
        outcome,
        sample=sample,
        response_ids=completion.token_ids,
        logprobs=completion.logprobs,
        policy_version=completion.policy_version,
        finish_reason=completion.finish_reason,
    )


def to_record(experience: Experience) -> dict[str, Any]:
    """Returns the experience as JSON values without its prompt, which the state gives again."""
    record = asdict(experience)
    del record["prompt_ids"]
    return record


def from_record(record: Mapping[str, Any], prompt_ids: tuple[int, ...]) -> Experience:
    """Returns the experience of a record that `to_record` made; `prompt_ids` are its state's."""
    reached = record["reached"]
    return Experience(
        **{
            **record,
            "reached": reached and Reached(**{**reached, "after": Snapshot(**reached["after"])}),
            "prompt_ids": prompt_ids,
            "response_ids": tuple(record["response_ids"]),
            "logprobs": tuple(record["logprobs"]),
            "outcome": Outcome(record["outcome"]),
        }
    )


def _is_of(experience: Experience, state: PoolState) -> bool:
    return (experience.trajectory_id, experience.depth) == (state.trajectory_id, state.depth)
