"""Episode-wise rollouts: from the beginnings of tasks the policy acts on to the end, each action rewarded."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rollout.environment.environment import Environment
from rollout.runtime.event_loop import gather
from rollout.sampling.deadline import Budget, turn, warn_of_cut
from rollout.sampling.episode import draw_seed
from rollout.sampling.experience import EPISODE, Experience, from_record
from rollout.sampling.rewarded_step import rewarded_step, unknown, with_completion
from rollout.sampling.state_pool import PoolState
from rollout.sampling.update_journal import UpdateJournal
from rollout.storage.journal import Journal
from rollout.tokenizer.chat import ChatTokenizer
from rollout.types import Policy
from tasks.action import ends_trajectory
from tasks.reward import PAPER, Rules


@dataclass(frozen=True)
class EpisodeLimits:
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
    length: EpisodeLimits,
    seed: int,
    update: int = 0,
    rules: Rules = PAPER,
    journal: Journal | None = None,
    budget: Budget | None = None,
) -> list[Experience]:
    """Return the actions of `num_samples` episodes from each start, those of an episode together and in order.

    Every episode is a trajectory of its own name. One that lost an action to the infrastructure is masked as a whole:
    what it would have earned is unknown. One whose turn comes after the time of `budget` is left out: one action of it
    stands here, which is `cut`.

    With a journal, which is of this update alone, every finished action is appended first, and those that it has are
    taken from it, unless all of them are masked; what is missing is sampled anew with the same seeds.

    Raises:
        ServerError: when the policy does not answer.
        CorruptRecord: where the journal's actions are of other states.
    """
    kept = UpdateJournal(journal)
    recorded = {
        (record["state"], record["experience"]["sample"], record["experience"]["depth"]): record["experience"]
        for record in kept.records
    }
    cut: list[tuple[int, Experience]] = []

    async def act(index: int, sample: int, here: PoolState, prompt_ids: tuple[int, ...]) -> Experience:
        record = recorded.get((index, sample, here.depth))
        if record is not None:
            kept.check(record, here)
            return from_record(record, prompt_ids)
        draw = draw_seed(seed, "episode", update, index, sample, here.depth)
        (completion,) = await policy.sample(prompt_ids, num_samples=1, seed=draw)
        text = tokenizer.decode(completion.token_ids)
        experience = with_completion(
            await rewarded_step(environment, here, prompt_ids, text, rules), sample, completion
        )
        kept.add((index, experience))
        return experience

    async def episode(index: int, sample: int, here: PoolState) -> list[Experience]:
        prompt_ids = tuple(tokenizer.prompt_ids(here.state))
        done: list[Experience] = []
        while len(done) < length.max_steps and len(prompt_ids) + length.max_response_tokens <= length.context_limit:
            done.append(await act(index, sample, here, prompt_ids))
            reached = done[-1].reached
            if reached is None:
                return [replace(each, reward=None) for each in done]
            if ends_trajectory(done[-1].action):
                break
            here = here.then(reached.response, reached.feedback, reached.after)
            prompt_ids = tuple(tokenizer.prompt_ids(here.state))
        return done

    async def episode_in_turn(index: int, sample: int) -> list[Experience]:
        start = replace(starts[index], trajectory_id=f"{starts[index].trajectory_id}{EPISODE}{sample}")
        left_out = replace(unknown(start, ()), sample=sample, cut=True)
        first = recorded.get((index, sample, 0))
        if first is not None:
            return [left_out] if first["cut"] else await episode(index, sample, start)
        async with turn(budget) as begins:
            if begins:
                return await episode(index, sample, start)
        cut.append((index, left_out))
        return [left_out]

    episodes = await gather(
        episode_in_turn(index, sample) for index in range(len(starts)) for sample in range(num_samples)
    )
    experiences = [experience for one in episodes for experience in one]
    kept.add(*cut)
    if cut:
        warn_of_cut(update, experiences)
    return experiences
