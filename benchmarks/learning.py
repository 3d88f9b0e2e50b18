"""Whether step-wise PPO improves the fine-tuned policy, on states that neither was trained on, over seeds.

    python benchmarks/learning.py [--out runs/learning] [--seeds 3] [key.sub=value ...]

For each seed the quickstart is run up to PPO. Then the scripted expert walks new episodes, on the training tasks and on
the held-out ones, and from a fixed sample of their states each policy acts several times: what is reported is the mean
reward of all actions and of the edits that ran, before and after PPO, with the paired difference and its 95 % interval
(states of one episode are resampled together, within each seed), beside never editing, a uniformly random recipe and
the scripted expert itself. Writes learning.json into the output folder and prints the table.
"""

import argparse
import json
import math
import random
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlagent_jax.config import Config
from mlagent_jax.config_file import load_config
from mlagent_jax.model.hf import load_hf
from mlagent_jax.policy_server import PolicyServer, connected
from mlagent_jax.progress import Reporter
from mlagent_jax.run_dir import RunDir, write_json
from mlagent_jax.summary import commit, versions
from mlagent_jax.weight_sync import WeightSync
from mlagent_jax.world import World, open_world
from rollout.chat import ChatTokenizer
from rollout.collect import collect, plan_collection
from rollout.context_reading import context_shares
from rollout.expert import OfflineExpert, RandomRecipeActor
from rollout.ideas import library_candidates
from rollout.recipes import recognise
from rollout.single_step import Experience, act_once, roll_out
from rollout.state_pool import PoolState, StatePool
from tasks.feedback import Outcome
from tasks.ideas import draw_ideas

SPLITS = ("train", "heldout")
POLICIES = ("sft", "ppo")
NUM_STATES = {"train": 100, "heldout": 60}
NUM_EPISODES = {"train": 50, "heldout": 30}
NUM_SAMPLES = 4
NUM_RESAMPLES = 4000
FRESH = 1_000_000  # added to a run's seed for the episodes that nothing was trained on


def train(config: Config, overrides: Sequence[str]) -> None:
    """Brings the run of one seed up to date as far as PPO."""
    for stage in ("collect", "sft", "ppo"):
        command = (sys.executable, "-m", "mlagent_jax.train", f"stage={stage}", *overrides)
        subprocess.run(command, check=True)


def fresh_states(config: Config, run_dir: RunDir, world: World, split: str) -> list[PoolState]:
    """Returns a fixed sample of states of new expert episodes on the tasks of one split."""
    tasks = world.of_split(split)
    pools = library_candidates(tasks)
    seed = config.seed + FRESH
    plans = plan_collection(tasks, NUM_EPISODES[split], seed, lambda task, rng: draw_ideas(rng, pools[task.name]))
    trajectories = world.background.run(
        collect(
            run_dir.path("learning", split),
            plans,
            world.environment,
            OfflineExpert(config.collect.max_steps),
            max_steps=config.collect.max_steps,
            max_seconds=60 * config.collect.max_minutes,
            num_concurrent=world.num_concurrent,
        )
    )
    tokenizer = ChatTokenizer(run_dir.tokenizer)
    room = config.server.max_model_len - config.ppo.max_response_tokens
    pool = StatePool.cut(trajectories, world.tasks, config.collect.max_steps)
    pool = pool.where(lambda state: len(tokenizer.prompt_ids(state.state)) <= room)
    return pool.sample(min(NUM_STATES[split], len(pool)), random.Random(f"{seed}/learning/{split}"))


def act(config: Config, run_dir: RunDir, world: World) -> dict[str, dict[str, list[Experience]]]:
    """Returns the actions of every policy and baseline from the fresh states, by split and actor."""
    states = {split: fresh_states(config, run_dir, world, split) for split in SPLITS}
    found: dict[str, dict[str, list[Experience]]] = {split: {} for split in SPLITS}
    seed = config.seed + FRESH
    for name, actor in (("random_recipe", RandomRecipeActor()), ("expert", OfflineExpert(config.collect.max_steps))):
        for split in SPLITS:
            acted = act_once(world.environment, actor, states[split], num_samples=NUM_SAMPLES, seed=seed)
            found[split][name] = world.background.run(acted)
    tokenizer = ChatTokenizer(run_dir.tokenizer)
    with PolicyServer(config, run_dir) as server:
        server.launch(run_dir.sft_policy)
        with connected(config, tokenizer, world, server) as client:
            canary = tokenizer.prompt_ids(states["train"][0].state)
            sync = WeightSync(client, run_dir.path("learning", "weights"), canary, config.server.dtype)
            for name, folder in zip(POLICIES, (run_dir.sft_policy, run_dir.ppo_policy), strict=True):
                world.background.run(sync.push(load_hf(folder), client.version + 1))
                for split in SPLITS:
                    acted = roll_out(
                        world.environment, client, tokenizer, states[split], num_samples=NUM_SAMPLES, seed=seed
                    )
                    found[split][name] = world.background.run(acted)
    return found


def sums(experiences: Sequence[Experience], edits_only: bool) -> dict[str, tuple[float, int]]:
    """Returns the sum of rewards and their number, by episode that the states are cut from."""
    table: dict[str, tuple[float, int]] = defaultdict(lambda: (0.0, 0))
    for experience in experiences:
        if experience.reward is None or (edits_only and experience.outcome is not Outcome.EDIT):
            continue
        total, count = table[experience.trajectory_id]
        table[experience.trajectory_id] = (total + experience.reward, count + 1)
    return table


def difference(runs: Sequence[Mapping[str, Sequence[Experience]]], edits_only: bool) -> dict[str, float]:
    """Returns mean reward after PPO less that before, averaged over seeds, with its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    draws = np.zeros(NUM_RESAMPLES)
    means = []
    for run in runs:
        tables = [sums(run[name], edits_only) for name in POLICIES]
        episodes = sorted({episode for name in POLICIES for episode in (e.trajectory_id for e in run[name])})
        arrays = [np.array([table.get(episode, (0.0, 0)) for episode in episodes]) for table in tables]
        before, after = (array[:, 0].sum() / array[:, 1].sum() for array in arrays)
        means.append(after - before)
        weights = rng.multinomial(len(episodes), np.full(len(episodes), 1 / len(episodes)), NUM_RESAMPLES)
        totals = [weights @ array for array in arrays]
        draws += (totals[1][:, 0] / totals[1][:, 1] - totals[0][:, 0] / totals[0][:, 1]) / len(runs)
    low, high = np.percentile(draws, [2.5, 97.5])
    return {"mean": float(np.mean(means)), "low": float(low), "high": float(high)}


def describe(experiences: Sequence[Experience]) -> dict[str, Any]:
    """Returns rewards, outcome shares, context readings and the mix of recipes of one actor."""
    known = [experience for experience in experiences if experience.reward is not None]
    edits = [experience for experience in known if experience.outcome is Outcome.EDIT]
    recipes = Counter(name for e in known for name in recognise(e.instruction))
    shares = [count / recipes.total() for count in recipes.values()]
    return {
        "mean": float(np.mean([e.reward for e in known])),
        "edit_mean": float(np.mean([e.reward for e in edits])) if edits else None,
        "outcomes": {o.value: sum(e.outcome is o for e in known) / len(known) for o in Outcome},
        "context": context_shares(e.context for e in known),
        "effective_recipes": math.exp(-sum(share * math.log(share) for share in shares)),
        "recipes": dict(recipes.most_common()),
        "num_actions": len(known),
    }


def table(result: Mapping[str, Any]) -> str:
    """Returns the result as the Markdown that the documentation shows."""
    lines = []
    for split in SPLITS:
        found = result[split]
        lines += [f"\n{split} tasks | all actions | edits that ran | invalid | error | edit share", "-|-|-|-|-|-"]
        lines.append("never editing | 0 | | 0 | 0 | 0")
        for name in ("random_recipe", "expert", *POLICIES):
            rows = [run[name] for run in found["seeds"]]
            values = [np.mean([row[key] for row in rows]) for key in ("mean", "edit_mean")]
            values += [np.mean([row["outcomes"][key] for row in rows]) for key in ("invalid", "error", "edit")]
            lines.append(f"{name} | " + " | ".join(f"{value:.3f}" for value in values))
        for key, words in (("all", "all actions"), ("edits", "edits that ran")):
            d = found["difference"][key]
            lines.append(f"\nPPO less SFT, {words}: {d['mean']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]")
    return "\n".join(lines)


def main() -> None:
    """Runs the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("settings", nargs="*")
    arguments = parser.parse_args()
    runs: list[dict[str, dict[str, list[Experience]]]] = []
    for seed in range(arguments.seeds):
        overrides = [*arguments.settings, f"seed={seed}", f"run_dir={arguments.out / str(seed)}"]
        config = load_config(None, overrides)
        train(config, overrides)
        run_dir = RunDir(Path(config.run_dir))
        with run_dir.lock(), open_world(config, run_dir, Reporter()) as world:
            runs.append(act(config, run_dir, world))
    result: dict[str, Any] = {"commit": commit(), "versions": versions(), "settings": arguments.settings}
    for split in SPLITS:
        by_seed = [run[split] for run in runs]
        result[split] = {
            "difference": {"all": difference(by_seed, False), "edits": difference(by_seed, True)},
            "difference_by_seed": [
                {"all": difference([run], False), "edits": difference([run], True)} for run in by_seed
            ],
            "seeds": [{name: describe(acted) for name, acted in run.items()} for run in by_seed],
        }
    write_json(arguments.out / "learning.json", result)
    print(table(result))
    print(json.dumps({split: result[split]["difference"] for split in SPLITS}))


if __name__ == "__main__":
    main()
