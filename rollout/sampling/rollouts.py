"""Roll out the policy from a batch of states, for one action or for whole episodes, and reward each action."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rollout.environment.environment import Environment
from rollout.runtime.event_loop import gather
from rollout.sampling.deadline import Deadline, admit, warn_of_cut
from rollout.sampling.episode import draw_seed
from rollout.sampling.experience import Experience, from_record
from rollout.sampling.rewarded_step import completion_of, rewarded_step, unknown, with_completion
from rollout.sampling.state_pool import PoolState
from rollout.sampling.update_journal import UpdateJournal
from rollout.storage.journal import Journal
from rollout.tokenizer.chat import ChatTokenizer
from rollout.types import Policy
from tasks.action import ends_trajectory
from tasks.reward import PAPER, Rules


@dataclass(frozen=True)
class EpisodeLimits:
    """The limits that end an episode.

    Attributes:
        max_steps: The maximum number of actions.
        context_limit: The maximum number of tokens of a prompt and its response together.
        max_response_tokens: The maximum number of tokens of a response.
    """

    max_steps: int
    context_limit: int
    max_response_tokens: int


@dataclass(frozen=True)
class RolloutSpec:
    """The kind and number of the rollouts of an update.

    Attributes:
        num_samples: The number of rollouts from each state.
        seed: The seed of every draw.
        episodes: The limits of whole episodes; None for single actions, which are episodes of length one.
        rules: The rules of the reward.
    """

    num_samples: int
    seed: int
    episodes: EpisodeLimits | None = None
    rules: Rules = PAPER


async def roll_out(
    spec: RolloutSpec,
    environment: Environment,
    policy: Policy,
    tokenizer: ChatTokenizer,
    states: Sequence[PoolState],
    *,
    update: int = 0,
    journal: Journal | None = None,
    deadline: Deadline | None = None,
    redo_lost: bool = False,
) -> list[Experience]:
    """Return the actions of `spec.num_samples` rollouts from each state, in the order of states, samples and steps.

    The single actions in one state are sampled by one request, and equal responses are executed once. An action whose
    infrastructure failed is masked: its reward is None. It ends its episode, and all actions of the episode are masked,
    because the return is unknown. A rollout that is not begun before the deadline is left out; one action that is
    marked `cut` represents it. The single actions in one state begin together.

    Every finished action is appended to the journal first. Recorded actions are taken from the journal; missing ones
    are sampled with the same seeds as before the interruption.

    Args:
        spec: The kind and number of the rollouts.
        environment: The environment that executes actions.
        policy: The policy to sample from.
        tokenizer: The policy's tokenizer.
        states: The states to start from.
        update: The number of the update, which the seeds depend on.
        journal: The journal of this update alone; None to record nothing.
        deadline: The time in which rollouts may begin; None for no limit.
        redo_lost: Whether recorded actions that the infrastructure lost are executed again, with the same responses.

    Raises:
        ServerError: If the policy does not answer.
        CorruptRecord: If the journal has another schema or actions of other states.
    """
    recorded = UpdateJournal(journal, states, spec.episodes is not None)
    rollouts = _Rollouts(spec, environment, policy, tokenizer, update, recorded, redo_lost)
    numbers = range(spec.num_samples)
    groups = [[*numbers]] if spec.episodes is None else [[number] for number in numbers]  # what one request asks for
    cut: list[tuple[int, Experience]] = []

    async def run_if_admitted(start: int, samples: list[int]) -> list[Experience]:
        state = states[start]
        has_record = [recorded.get(start, sample, state.depth) is not None for sample in samples]
        if all(has_record):
            return await rollouts.run(start, state, samples)
        async with admit(deadline) as in_time:
            if in_time or any(has_record):  # what was begun before an interruption is finished
                return await rollouts.run(start, state, samples)
        cut.extend(left_out := [(start, rollouts.left_out(state, sample)) for sample in samples])
        return [experience for _, experience in left_out]

    batches = await gather(run_if_admitted(start, samples) for start in range(len(states)) for samples in groups)
    experiences = [experience for batch in batches for experience in batch]
    if cut:
        recorded.add(*cut)  # in one write: the actions in one state belong together
        warn_of_cut(update, experiences)
    return experiences


@dataclass(frozen=True)
class _Rollouts:
    """The rollouts of one update."""

    spec: RolloutSpec
    environment: Environment
    policy: Policy
    tokenizer: ChatTokenizer
    update: int
    journal: UpdateJournal
    redo_lost: bool

    async def run(self, start: int, state: PoolState, samples: Sequence[int]) -> list[Experience]:
        """Return the single actions with these numbers in a state, or the actions of one episode from it."""
        limits = self.spec.episodes
        if limits is None:
            return await self.act(start, state, samples)
        experiences: list[Experience] = []
        longest_prompt = limits.context_limit - limits.max_response_tokens
        while len(state.prompt) <= longest_prompt:
            (experience,) = await self.act(start, state, samples)
            experiences.append(experience)
            if experience.cut:
                break
            if experience.reached is None:
                return [replace(each, reward=None) for each in experiences]
            if ends_trajectory(experience.action) or len(experiences) == limits.max_steps:
                break
            state = state.then(experience.reached, self.tokenizer)
        return experiences

    async def act(self, start: int, state: PoolState, samples: Sequence[int]) -> list[Experience]:
        """Return one action in `state` for each number: recorded ones, and the missing ones from one request."""
        prompt_ids = state.prompt_ids
        done: dict[int, Experience] = {}
        lost: dict[int, Experience] = {}
        for sample in samples:
            record = self.journal.get(start, sample, state.depth)
            if record is not None:
                experience = from_record(record, prompt_ids)
                is_lost = experience.reward is None and not experience.cut
                (lost if is_lost and self.redo_lost else done)[sample] = experience
        responses = {sample: completion_of(experience) for sample, experience in lost.items()}
        if len(done) + len(lost) < len(samples):
            completions = await self.policy.sample(
                prompt_ids, num_samples=len(samples), seed=self._draw(start, state.depth, samples)
            )
            sampled = dict(zip(samples, completions, strict=True))
            responses |= {sample: sampled[sample] for sample in samples if sample not in done and sample not in lost}
        by_text: dict[str, list[int]] = defaultdict(list)
        for sample, completion in responses.items():
            by_text[self.tokenizer.decode(completion.token_ids)].append(sample)

        async def execute(text: str, equal: list[int]) -> None:
            experience = await rewarded_step(self.environment, state, prompt_ids, text, self.spec.rules)
            for sample in equal:
                attempt = lost[sample].attempt + 1 if sample in lost else 1
                numbered = replace(self.numbered(experience, sample), attempt=attempt)
                done[sample] = with_completion(numbered, responses[sample])
                self.journal.add((start, done[sample]))

        await gather(execute(text, equal) for text, equal in by_text.items())
        return [done[sample] for sample in samples]

    def left_out(self, state: PoolState, sample: int) -> Experience:
        """Return the action that represents a rollout that is not begun."""
        return self.numbered(replace(unknown(state, state.prompt_ids), cut=True), sample)

    def numbered(self, experience: Experience, sample: int) -> Experience:
        """Return the action with the number of its sample, which is also that of its episode."""
        return replace(experience, sample=sample, episode=sample if self.spec.episodes else None)

    def _draw(self, start: int, depth: int, samples: Sequence[int]) -> int:
        if self.spec.episodes is None:
            return draw_seed(self.spec.seed, "action", self.update, start)
        (sample,) = samples
        return draw_seed(self.spec.seed, "episode", self.update, start, sample, depth)
