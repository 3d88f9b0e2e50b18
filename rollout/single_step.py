"""Step-wise rollouts: several single actions from each of a batch of states, each done and rewarded."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from rollout.background import gather
from rollout.budget import Budget, turn, warn_of_cut
from rollout.chat import ChatTokenizer
from rollout.episode import draw_seed
from rollout.errors import CorruptRecord
from rollout.experience import Experience, from_record, to_record
from rollout.journal import Journal
from rollout.rewarded_step import rewarded_step, unknown, with_completion
from rollout.state_pool import PoolState
from rollout.step import Environment
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
    """Returns `num_samples` experiences of each state, in the order of states, then samples.

    Responses that are equal in one state are done once. An action whose infrastructure failed is masked: its reward
    is None. Those in states whose turn comes after the time of `budget` are left out: they are `cut`.

    With a journal every finished action is appended first, and those that it has for this update are taken from it,
    unless all of them are masked; what is missing is sampled anew with the same seeds.

    Raises:
        ServerError: when the policy does not answer.
        CorruptRecord: where the journal's actions of this update are of other states.
    """
    prompts = [tuple(tokenizer.prompt_ids(state.state)) for state in states]
    recorded = _recorded(journal, update, states, prompts) if journal else defaultdict(dict)

    def keep(index: int, experience: Experience) -> None:
        recorded[index][experience.sample] = experience
        if journal:
            journal.append({"update": update, "state": index, "experience": to_record(experience)})

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
                keep(index, with_completion(outcome, sample, completions[sample]))

        await gather(do(text, samples) for text, samples in missing.items())

    async def act_in_turn(index: int) -> list[Experience]:
        done = recorded[index]
        if len(done) < num_samples:
            async with turn(budget) as begins:
                if all(not each.cut for each in done.values()) if done else begins:
                    await act_in(index)
                else:
                    for sample in range(num_samples):
                        keep(index, replace(unknown(states[index], prompts[index]), sample=sample, cut=True))
        return [done[sample] for sample in range(num_samples)]

    batches = await gather(act_in_turn(index) for index in range(len(states)))
    experiences = [experience for batch in batches for experience in batch]
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
    """Returns `num_samples` experiences of each state by an actor that is no policy, such as a baseline; no tokens.

    Raises:
        ExpertError: when an actor behind an endpoint does not answer.
    """

    async def act(index: int, sample: int) -> Experience:
        state = states[index]
        response = await actor.act(state.instance, state.state, draw_seed(seed, "action", index, sample))
        text = response.text if response else ""
        return replace(await rewarded_step(environment, state, (), text, rules), sample=sample)

    return await gather(act(index, sample) for index in range(len(states)) for sample in range(num_samples))


def _recorded(
    journal: Journal, update: int, states: Sequence[PoolState], prompts: Sequence[tuple[int, ...]]
) -> dict[int, dict[int, Experience]]:
    """Returns what the journal has of an update, by state and sample; nothing where nothing is known of any action."""
    found: dict[int, dict[int, Experience]] = defaultdict(dict)
    for record in journal.records:
        if record["update"] == update:
            index = record["state"]
            experience = from_record(record["experience"], prompts[index] if index < len(states) else ())
            if index >= len(states) or not _is_of(experience, states[index]):
                raise CorruptRecord(
                    f"{journal.path} holds actions of other states for update {update}; remove it to roll the update "
                    "out again"
                )
            found[index][experience.sample] = experience
    if all(each.reward is None for done in found.values() for each in done.values()):
        found.clear()  # whatever was wrong then, all are tried again
    return found


def _is_of(experience: Experience, state: PoolState) -> bool:
    return (experience.trajectory_id, experience.depth) == (state.trajectory_id, state.depth)
