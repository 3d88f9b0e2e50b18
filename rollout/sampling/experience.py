"""What an action in a state came to: the record of a rollout that the learner learns from."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rollout.types import Snapshot
from tasks.feedback import Outcome

EPISODE = "#"  # in the name of an episode, between the trajectory that it begins like and its number


@dataclass(frozen=True)
class Transition:
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
        context: which facts of the state the response repeats rightly (`rollout.sampling.grounding`).
        reached: where it led; None where nothing is known.
        cut: whether it was left out, unsampled, because the time for its update was up.
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
    reached: Transition | None = None
    cut: bool = False


def begun_share(experiences: Sequence[Experience]) -> float:
    """Return the share of what had a turn to act, actions or whole episodes, that the time for the update allowed."""
    turns = {
        each.trajectory_id if EPISODE in each.trajectory_id else (each.trajectory_id, each.depth, each.sample): each.cut
        for each in experiences
    }
    return 1.0 - sum(turns.values()) / max(len(turns), 1)


def reward_figures(experiences: Sequence[Experience]) -> dict[str, float]:
    """Return the mean reward, that of edits that ran, the share of each outcome, and of masked and of cut actions.

    Means and shares are over the actions that are neither; `cut_share` is over actions or whole episodes, whichever
    had turns. `edit_mean` is missing where no edit ran.
    """
    begun = [experience for experience in experiences if not experience.cut]
    known = [experience for experience in begun if experience.reward is not None]
    figures = {"masked_share": 1.0 - len(known) / max(len(begun), 1), "cut_share": 1.0 - begun_share(experiences)}
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


def to_record(experience: Experience) -> dict[str, Any]:
    """Return the experience as JSON values without its prompt, which the state gives again."""
    record = asdict(experience)
    del record["prompt_ids"]
    return record


def from_record(record: Mapping[str, Any], prompt_ids: tuple[int, ...]) -> Experience:
    """Return the experience of a record that `to_record` made; `prompt_ids` are its state's."""
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
