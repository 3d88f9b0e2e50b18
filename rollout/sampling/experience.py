"""The records of a rollout: one action, its outcome, and the part of it that the learner uses."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from rollout.types import Snapshot
from tasks.feedback import Outcome
from tasks.response import lenient_share, parse_response

Origin = Literal["expert", "policy"]


@dataclass(frozen=True)
class Transition:
    """The transition that an action caused.

    Attributes:
        response: The whole text of the response.
        feedback: The environment's answer.
        after: The snapshot that the environment continues from.
        plain_instruction: The plain instruction of an edit (`tasks.action.plain_instruction`), None for other actions.
    """

    response: str
    feedback: str
    after: Snapshot
    plain_instruction: str | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingSample:
    """One response to one state, with everything that the learner uses and nothing else.

    Attributes:
        trajectory_id: The trajectory of which the state is a prefix; for an episode, the one that it starts from.
        episode: The number of the episode among those from the same start; None for a single action.
        depth: The number of turns of the state.
        sample: The number of the response among those to the same state.
        prompt_ids: The state as tokens.
        response_ids: The response as sampled, with its end token if it has one.
        logprobs: The sampler's log-probability of each response token, in nats.
        policy_version: The version of the weights that wrote the response.
        reward: The reward, or None if it is masked because nothing is known.
    """

    trajectory_id: str
    episode: int | None = None
    depth: int
    sample: int
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    policy_version: int
    reward: float | None


@dataclass(frozen=True, kw_only=True)
class Experience(TrainingSample):
    """One action in one state, and its result.

    Attributes:
        origin: Whether the expert or the policy made the trajectory of which the state is a prefix.
        task: The name of the task.
        finish_reason: `stop` or `length`.
        outcome: The class of the result; `infrastructure` if nothing is known.
        metric: The hidden score of the submission that the run left.
        seconds: Wall-clock time in the coder and the script; 0 for a cached result.
        action: The name of the action, or an empty string if the response was invalid.
        instruction: The edit instruction, or an empty string for other actions.
        repeated: Whether an earlier turn of the state has the same edit instruction.
        grounding: The facts of the state that the response repeats correctly (`rollout.sampling.grounding`).
        reached: The transition that the action caused; None if nothing is known.
        cut: Whether the action was left out, unsampled, because the time for its update was up.
        attempt: The number of the execution that gave this result; above 1 if the infrastructure lost earlier ones.
        failure: The failure of the infrastructure; empty if there was none.
    """

    origin: Origin = "expert"
    task: str
    finish_reason: str
    outcome: Outcome
    metric: float | None
    seconds: float
    action: str
    instruction: str
    repeated: bool
    grounding: Mapping[str, bool | None]
    reached: Transition | None = None
    cut: bool = False
    attempt: int = 1
    failure: str = ""

    def training_sample(self) -> TrainingSample:
        """Return the part that the learner uses."""
        return TrainingSample(**{field.name: getattr(self, field.name) for field in fields(TrainingSample)})


def begun_share(experiences: Sequence[Experience]) -> float:
    """Return the share of rollouts, single actions or whole episodes, that were begun before the deadline."""
    cut = {
        (each.trajectory_id, each.episode)
        if each.episode is not None
        else (each.trajectory_id, each.depth, each.sample): each.cut
        for each in experiences
    }
    return 1.0 - sum(cut.values()) / max(len(cut), 1)


def masked_share(experiences: Sequence[Experience]) -> float:
    """Return the share of masked actions among those that were begun; 0 if none was."""
    begun = [each for each in experiences if not each.cut]
    return sum(each.reward is None for each in begun) / max(len(begun), 1)


def reward_figures(experiences: Sequence[Experience]) -> dict[str, float]:
    """Return mean and deviation of the reward, the mean of edits that ran, and shares of outcomes, masked and cut.

    `redone_share` is the share of actions that were executed again, because the infrastructure lost too many.

    `lenient_share` is the share of valid responses that are not exact; it is missing if there are none.

    Means and shares of outcomes are over the actions that are neither masked nor cut. `cut_share` is the share of
    rollouts, single actions or whole episodes, that were not begun. `edit_mean` is missing if no edit ran.
    """
    begun = [experience for experience in experiences if not experience.cut]
    known = [experience for experience in begun if experience.reward is not None]
    figures = {
        "masked_share": masked_share(experiences),
        "redone_share": sum(each.attempt > 1 for each in begun) / max(len(begun), 1),
        "cut_share": 1.0 - begun_share(experiences),
    }
    if not known:
        return figures
    rewards = [experience.reward or 0.0 for experience in known]
    edits = [value for value, experience in zip(rewards, known, strict=True) if experience.outcome is Outcome.EDIT]
    figures["mean"] = sum(rewards) / len(rewards)
    figures["std"] = statistics.pstdev(rewards)
    if edits:
        figures["edit_mean"] = sum(edits) / len(edits)
    figures["repeated_share"] = sum(experience.repeated for experience in known) / len(known)
    for outcome in Outcome:
        if outcome is not Outcome.INFRASTRUCTURE:
            num = sum(experience.outcome is outcome for experience in known)
            figures[f"{outcome.value}_share"] = num / len(known)
    lenient = lenient_share(parse_response(one.reached.response) for one in known if one.reached is not None)
    return figures if lenient is None else figures | {"lenient_share": lenient}


def to_record(experience: Experience) -> dict[str, Any]:
    """Return the experience as JSON values, without its prompt, which the state has."""
    record = asdict(experience)
    del record["prompt_ids"]
    return record


def from_record(record: Mapping[str, Any], prompt_ids: tuple[int, ...]) -> Experience:
    """Return the experience of a record that `to_record` made, given the prompt of its state."""
    reached = record["reached"]
    return Experience(
        **{
            **record,
            "reached": reached and Transition(**{**reached, "after": Snapshot(**reached["after"])}),
            "prompt_ids": prompt_ids,
            "response_ids": tuple(record["response_ids"]),
            "logprobs": tuple(record["logprobs"]),
            "outcome": Outcome(record["outcome"]),
        }
    )
