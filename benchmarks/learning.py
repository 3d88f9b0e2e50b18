"""Measure whether step-wise PPO improves the fine-tuned policy on states that neither was trained on, over seeds.

    python -m benchmarks.learning [--out runs/learning] [--results benchmarks/results/learning] [--seeds 3]
                                     [--config configs/quickstart.yaml] [key.sub=value ...]

For each seed the configuration runs up to the evaluation in whole trajectories. Then the scripted expert runs new
episodes on the held-in and the held-out tasks, and every policy acts several times from one fixed sample of their
states. The report has the mean reward of all actions and of the edits that ran, before and after PPO, with the paired
difference and its 95 % interval (seeds are resampled, then the episodes of the states), compared with never editing, a
uniformly random recipe and the scripted expert itself, and the evaluation of every seed. Writes learning.json and
learning.md.
"""

import argparse
import json
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.expert_states import expert_states
from benchmarks.figures import machine
from benchmarks.learning_tables import POLICIES, SPLITS, Acted, markdown, summarize, whole_trajectories
from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import Config
from mlagent_jax.reporting.summary import DISTRIBUTIONS, commit, versions
from mlagent_jax.run.context import RunContext, open_run_context
from mlagent_jax.run.policy_server import PolicyServer, connect
from mlagent_jax.run.run_dir import RunDir
from mlagent_jax.stages.evaluate import serve_policy
from mlagent_jax.tracking.progress import Reporter
from rollout.environment.environment import Environment
from rollout.runtime.event_loop import gather
from rollout.sampling.episode import draw_seed
from rollout.sampling.experience import Experience
from rollout.sampling.rewarded_step import rewarded_step
from rollout.sampling.rollouts import RolloutSpec, roll_out
from rollout.sampling.state_pool import PoolState, interleave, shuffled
from rollout.scripted.expert import ScriptedExpert
from rollout.scripted.random_recipes import RandomRecipeActor
from rollout.storage.atomic_write import write_json, write_text
from rollout.tokenizer.chat import ChatTokenizer
from rollout.types import Actor
from tasks.quoting import shell_command, user_path
from tasks.reward import PAPER

NUM_STATES = {"held_in": 100, "held_out": 60}
NUM_EPISODES = {"held_in": 50, "held_out": 30}
NUM_SAMPLES = {"random_recipe": 1, "expert": 1, "sft": 4, "ppo": 4}
STAGES = "collect", "sft", "ppo", "evaluate"
STATES_SEED = 1_000_000  # seed of episodes that nothing was trained on


def train(config_path: Path, overrides: Sequence[str], stages: Sequence[str] = STAGES) -> None:
    """Run the stages of one seed, skipping finished ones."""
    for stage in stages:
        command = [
            sys.executable,
            "-m",
            "mlagent_jax.train",
            "--config",
            str(config_path),
            f"stage={stage}",
            *overrides,
        ]
        subprocess.run(command, check=True)


def fresh_states(
    config: Config, run_dir: RunDir, context: RunContext, split: str, runs: Sequence[RunDir]
) -> list[PoolState]:
    """Return a fixed sample of states of new expert episodes on one split, short enough for every run."""
    tasks = context.of_split(split)
    tokenizers = [ChatTokenizer(run.tokenizer, config.system_text) for run in runs]
    room = config.server.max_model_len - config.ppo.max_response_tokens
    folder, num = run_dir.path(split), NUM_EPISODES[split]
    pool = expert_states(config, context, tasks, num, STATES_SEED, folder, tokenizers[0])
    pool = pool.where(lambda state: all(len(tokenizer.prompt_ids(state.state)) <= room for tokenizer in tokenizers))
    return sample(pool.states, NUM_STATES[split], random.Random(f"{STATES_SEED}/learning/{split}"))


def sample(states: Sequence[PoolState], num_states: int, rng: random.Random) -> list[PoolState]:
    """Return distinct states, at most `num_states`, as evenly over tasks and depths as possible."""
    cells: dict[str, dict[int, list[PoolState]]] = defaultdict(lambda: defaultdict(list))
    for state in states:
        cells[state.instance.task.name][state.depth].append(state)
    by_task = [
        interleave([rng.sample(cell, len(cell)) for cell in shuffled(depths.values(), rng)])
        for depths in shuffled(cells.values(), rng)
    ]
    return interleave(by_task)[:num_states]


async def act_once(
    environment: Environment, actor: Actor, states: Sequence[PoolState], num_samples: int, seed: int
) -> list[Experience]:
    """Return the outcomes of `num_samples` responses of a baseline in each state; they have no tokens."""

    async def act(index: int, number: int) -> Experience:
        state = states[index]
        response = await actor.act(state.instance, state.state, draw_seed(seed, "action", index, number))
        return replace(
            await rewarded_step(environment, state, (), response.text if response else "", PAPER), sample=number
        )

    return await gather(act(index, number) for index in range(len(states)) for number in range(num_samples))


def act_baselines(config: Config, context: RunContext, states: Mapping[str, Sequence[PoolState]]) -> dict[str, Acted]:
    """Return the actions of the baselines from the new states, by split."""
    found: dict[str, Acted] = {split: {} for split in SPLITS}
    for name, actor in (("random_recipe", RandomRecipeActor()), ("expert", ScriptedExpert(config.collect.max_steps))):
        for split in SPLITS:
            num_samples = NUM_SAMPLES[name]
            acted = act_once(context.environment, actor, states[split], num_samples, STATES_SEED)
            found[split][name] = context.event_loop.run(acted)
    return found


def act_policies(
    config: Config, run: RunDir, context: RunContext, states: Mapping[str, Sequence[PoolState]]
) -> dict[str, Acted]:
    """Return the actions of one run's two policies from the new states, by split."""
    found: dict[str, Acted] = {split: {} for split in SPLITS}
    tokenizer = ChatTokenizer(run.tokenizer, config.system_text)
    with PolicyServer(config.server, run.server_log, run.temporary, max_adapter_rank=config.served_rank) as server:
        server.launch(Path(config.served_base or run.sft_policy))
        sampling = config.ppo.temperature, config.ppo.max_response_tokens, [tokenizer.eos_id]
        with connect(server, context.event_loop, *sampling) as client:
            for name, folder in zip(POLICIES, (run.sft_policy, run.ppo_policy), strict=True):
                serve_policy(client, context.event_loop, folder, config.server)
                for split in SPLITS:
                    spec = RolloutSpec(NUM_SAMPLES[name], config.seed)
                    ours = [replace(each, prompt=tokenizer.prompt_ids(each.state)) for each in states[split]]
                    acted = roll_out(spec, context.environment, client, tokenizer, ours)
                    found[split][name] = context.event_loop.run(acted)
    return found


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=user_path, default=Path("runs/learning"))
    parser.add_argument("--results", type=user_path, default=Path("benchmarks/results/learning"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--config", type=user_path, default=Path("configs/quickstart.yaml"))
    parser.add_argument("settings", nargs="*")
    arguments = parser.parse_args()
    configs = []
    for seed in range(arguments.seeds):
        overrides = [*arguments.settings, f"seed={seed}", f"run_dir={arguments.out / str(seed)}"]
        configs.append(load_config(arguments.config, overrides))
        train(arguments.config, overrides)
    runs = [RunDir(Path(config.run_dir)) for config in configs]
    states_dir = RunDir(arguments.out / "states")
    first = configs[0]
    sections = first.tasks, first.executor, first.prompt, first.observation, first.expert, first.coder
    opening = open_run_context(states_dir, *sections, Reporter())
    with states_dir.lock(), opening as context:
        states = {split: fresh_states(configs[0], states_dir, context, split, runs) for split in SPLITS}
        baselines = act_baselines(configs[0], context, states)
        acted = [act_policies(config, run, context, states) for config, run in zip(configs, runs, strict=True)]
    result: dict[str, Any] = {"commit": commit(), "versions": versions(DISTRIBUTIONS), "machine": machine()}
    result |= {"command": shell_command("python", "-m", "benchmarks.learning", *sys.argv[1:])}
    result |= {split: summarize(baselines[split], [each[split] for each in acted]) for split in SPLITS}
    result["runs"] = [whole_trajectories(json.loads(run.summary.read_text())) for run in runs]
    arguments.results.mkdir(parents=True, exist_ok=True)
    write_json(arguments.results / "learning.json", result)
    write_text(arguments.results / "learning.md", markdown(result))
    print(markdown(result))


if __name__ == "__main__":
    main()
