"""Step-wise rollouts: several single actions from each of a batch of states, each done and rewarded."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from rollout.environment.environment import Environment
from rollout.runtime.event_loop import gather
from rollout.sampling.deadline import Budget, turn, warn_of_cut
from rollout.sampling.episode import draw_seed
from rollout.sampling.experience import Experience, from_record
from rollout.sampling.rewarded_step import rewarded_step, unknown, with_completion
from rollout.sampling.state_pool import PoolState
from rollout.sampling.update_journal import UpdateJournal
from rollout.storage.journal import Journal
from rollout.tokenizer.chat import ChatTokenizer
from rollout.types import Actor, Policy
from tasks.reward import PAPER, Rules


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
    budget: Budget | None = None,
) -> list[Experience]:
    """Return `num_samples` experiences of each state, in the order of states, then samples.

    Responses that are equal in one state are done once. An action whose infrastructure failed is masked: its reward
    is None. Those in states whose turn comes after the time of `budget` are left out: they are `cut`.

    With a journal, which is of this update alone, every finished action is appended first, and those that it has are
    taken from it, unless all of them are masked; what is missing is sampled anew with the same seeds.

    Raises:
        ServerError: when the policy does not answer.
        CorruptRecord: where the journal's actions of this update are of other states.
    """
    prompts = [tuple(tokenizer.prompt_ids(state.state)) for state in states]
    kept = UpdateJournal(journal)
    recorded: dict[int, dict[int, Experience]] = defaultdict(dict)
    for record in kept.records:
        index, found = record["state"], record["experience"]
        kept.check(found, states[index] if index < len(states) else None)
        recorded[index][found["sample"]] = from_record(found, prompts[index])
    cut: list[tuple[int, Experience]] = []

    async def act_in(index: int) -> None:
        state, prompt_ids, done = states[index], prompts[index], recorded[index]
        completions = await policy.sample(
            prompt_ids, num_samples=num_samples, seed=draw_seed(seed, "action", update, index)
        )
        missing: dict[str, list[int]] = defaultdict(list)
        for sample, completion in enumerate(completions):
            if sample not in done:
                missing[tokenizer.decode(completion.token_ids)].append(sample)

        async def do(text: str, samples: list[int]) -> None:
            outcome = await rewarded_step(environment, state, prompt_ids, text, rules)
            for sample in samples:
                done[sample] = with_completion(outcome, sample, completions[sample])
                kept.add((index, done[sample]))

        await gather(do(text, samples) for text, samples in missing.items())

    async def act_in_turn(index: int) -> list[Experience]:
        done = recorded[index]
        if len(done) < num_samples:
            async with turn(budget) as begins:
                if begins or done:
                    await act_in(index)
                else:
                    unsampled = replace(unknown(states[index], prompts[index]), cut=True)
                    done |= {sample: replace(unsampled, sample=sample) for sample in range(num_samples)}
                    cut.extend((index, each) for each in done.values())
        return [done[sample] for sample in range(num_samples)]

    batches = await gather(act_in_turn(index) for index in range(len(states)))
    experiences = [experience for batch in batches for experience in batch]
    kept.add(*cut)  # at once, for those of one state belong together
    if cut:
        warn_of_cut(update, experiences)
    return experiences


async def act_once(
    environment: Environment,
    actor: Actor,
    states: Sequence[PoolState],
    *,
    num_samples: int,
    seed: int,
    rules: Rules = PAPER,
) -> list[Experience]:
    """Return `num_samples` experiences of each state by an actor that is no policy, such as a baseline; no tokens.

    Raises:
        ExpertError: when an actor behind an endpoint does not answer.
    """

    async def act(index: int, sample: int) -> Experience:
        state = states[index]
        response = await actor.act(state.instance, state.state, draw_seed(seed, "action", index, sample))
        text = response.text if response else ""
        return replace(await rewarded_step(environment, state, (), text, rules), sample=sample)

    return await gather(act(index, sample) for index in range(len(states)) for sample in range(num_samples))
