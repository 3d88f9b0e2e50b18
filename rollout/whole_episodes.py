"""Episode-wise rollouts: from the beginnings of tasks the policy acts on to the end, each action rewarded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rollout.background import gather
from rollout.budget import Budget, turn, warn_of_cut
from rollout.chat import ChatTokenizer
from rollout.episode import draw_seed
from rollout.experience import Experience, from_record, to_record
from rollout.journal import Journal
from rollout.rewarded_step import rewarded_step, unknown, with_completion
from rollout.state_pool import PoolState
from rollout.step import Environment
from rollout.types import Policy
from tasks.action import FINAL_ANSWER
from tasks.reward import PAPER, Rules

EPISODE = "#"  # in the name of an episode, between the trajectory that it begins like and its number


@dataclass(frozen=True)
class Length:
    """Where an episode ends at the latest.

    Attributes:
        max_steps: actions.
        context_limit: tokens of a prompt and its response together.
        max_response_tokens: tokens of a response.
    """

    max_steps: int
    context_limit: int
    max_response_tokens: int


async def roll_out_episodes(
    environment: Environment,
    policy: Policy,
    tokenizer: ChatTokenizer,
    starts: Sequence[PoolState],
    *,
    num_samples: int,
    length: Length,
    seed: int,
    update: int = 0,
    rules: Rules = PAPER,
    journal: Journal | None = None,
    budget: Budget | None = None,
) -> list[Experience]:
    """Returns the actions of `num_samples` episodes from each start, those of an episode together and in order.

    Every episode is a trajectory of its own name. One that lost an action to the infrastructure is masked as a whole:
    what it would have earned is unknown. One whose turn comes after the time of `budget` is left out: one action of it
    stands here, which is `cut`.

    With a journal every finished action is appended first, and those that it has for this update are taken from it,
    unless all of them are masked; what is missing is sampled anew with the same seeds.

    Raises:
        ServerError: when the policy does not answer.
    """
    recorded = _recorded(journal, update) if journal else {}

    def keep(index: int, experience: Experience) -> None:
        if journal:
            journal.append({"update": update, "state": index, "experience": to_record(experience)})

    async def act(index: int, sample: int, here: PoolState, prompt_ids: tuple[int, ...]) -> Experience:
        record = recorded.get((index, sample, here.depth))
        if record is not None:
            return from_record(record, prompt_ids)
        draw = draw_seed(seed, "episode", update, index, sample, here.depth)
        (completion,) = await policy.sample(prompt_ids, num_samples=1, seed=draw)
        text = tokenizer.decode(completion.token_ids)
        outcome = await rewarded_step(environment, here, prompt_ids, text, rules)
        experience = with_completion(outcome, sample, completion)
        keep(index, experience)
        return experience

    async def episode(index: int, sample: int) -> list[Experience]:
        here = replace(starts[index], trajectory_id=f"{starts[index].trajectory_id}{EPISODE}{sample}")
        prompt_ids = tuple(tokenizer.prompt_ids(here.state))
        done: list[Experience] = []
        while len(done) < length.max_steps and len(prompt_ids) + length.max_response_tokens <= length.context_limit:
            done.append(await act(index, sample, here, prompt_ids))
            reached = done[-1].reached
            if reached is None:
                return [replace(each, reward=None) for each in done]
            if done[-1].action == FINAL_ANSWER:
                break
            here = here.then(reached.response, reached.feedback, reached.after)
            prompt_ids = tuple(tokenizer.prompt_ids(here.state))
        return done

    async def episode_in_turn(index: int, sample: int) -> list[Experience]:
        async with turn(budget) as begins:
            first = recorded.get((index, sample, 0))
            if begins if first is None else not first["cut"]:
                return await episode(index, sample)
        left_out = replace(unknown(starts[index], ()), sample=sample, cut=True)
        if first is None:
            keep(index, left_out)
        return [left_out]

    episodes = await gather(
        episode_in_turn(index, sample) for index in range(len(starts)) for sample in range(num_samples)
    )
    experiences = [experience for one in episodes for experience in one]
    warn_of_cut(update, experiences)
    return experiences


def _recorded(journal: Journal, update: int) -> dict[tuple[int, int, int], Mapping[str, Any]]:
    """Returns what the journal has of an update, by start, sample and depth; nothing where no action is known."""
    found: dict[tuple[int, int, int], Mapping[str, Any]] = {}
    for record in journal.records:
        if record["update"] == update:
            experience = record["experience"]
            found[record["state"], experience["sample"], experience["depth"]] = experience
    return found if any(each["reward"] is not None for each in found.values()) else {}
