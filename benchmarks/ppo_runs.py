"""Compare variants of PPO from one fine-tuned policy: seconds per update, and gain for the same training time.

    python -m benchmarks.ppo_runs [--ways step episode ...] [--minutes 8] [--marks 4] [--out runs/ppo_runs]
                                  [--results benchmarks/results/ppo_runs] [--config configs/quickstart.yaml]
                                  [key.sub=value ...]

`step` is the configuration as it is. `episode` acts in whole episodes, as many as `step` has single actions;
`few_episodes` in about as many actions as `step`. `ahead` acts one update early. `expert_states` acts in states of the
expert alone. Each starts from the same weights and the same cached scripts. Only the time of updates counts. Policies
are saved at equally spaced times and then evaluated on the same whole trajectories of every task. Writes ppo_runs.json,
.md and the picture gain.svg. The last line is JSON with the duration of an update relative to `step`.
"""

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.figures import machine, write_results
from benchmarks.learning import train
from benchmarks.ppo_runs_picture import picture, to_markdown
from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import Config
from mlagent_jax.platform import cpu
from mlagent_jax.ppo.loop import one_update
from mlagent_jax.ppo.prefetcher import RolloutPrefetcher
from mlagent_jax.reporting.edit_stats import edit_stats
from mlagent_jax.reporting.summary import DISTRIBUTIONS, commit, versions
from mlagent_jax.run.context import RunContext, open_run_context
from mlagent_jax.run.policy_server import PolicyServer, connect
from mlagent_jax.run.run_dir import RunDir
from mlagent_jax.stages.evaluate import run_episodes, serve_policy
from mlagent_jax.stages.ppo import make_pool
from mlagent_jax.stages.ppo_training import make_leader, make_learner, make_sync, make_worker
from mlagent_jax.tracking.progress import Reporter
from mlagent_jax.training.saved_policy import save_policy
from rollout.dataset.selection import read_selection, write_selection
from rollout.inference.canary import MAX_TOKENS
from rollout.inference.client import PolicyClient
from rollout.sampling.episode import PolicyActor
from rollout.sampling.evaluation import plan_evaluation, summarize
from rollout.sampling.failures import FAILED
from rollout.sampling.state_pool import StatePool
from rollout.tokenizer.chat import ChatTokenizer
from rollout.types import Trajectory
from tasks.quoting import shell_command, user_path

EPISODES = "ppo.episodes=true", "ppo.states=expert", "ppo.states_per_trajectory=1"
WAYS = {
    "step": [],
    "episode": [*EPISODES, "ppo.trajectories_per_update=24"],
    "few_episodes": [*EPISODES, "ppo.trajectories_per_update=6"],
    "ahead": ["ppo.max_staleness=1"],
    "expert_states": ["ppo.states=expert"],
}
NUM_UPDATES = 10_000  # more than any time allows
EDITS = ("effective_kinds", "choice", "recipes")  # that are kept of the statistics of edits
KEPT = ("config.yaml", "data", "blobs", "cache", "ideas.json", "selection.json", "sft", "tokenizer", "trajectories")


def measure(
    config: Config,
    base: RunDir,
    minutes: float,
    num_marks: int,
    before: dict[str, Any] | None,
    tasks: Collection[str] | None = None,
) -> dict[str, Any]:
    """Return the updates and gains of one variant.

    Args:
        config: The configuration of the variant.
        base: The run of the fine-tuned policy that it starts from.
        minutes: The minutes of updates.
        num_marks: The number of policies to save and evaluate.
        before: The evaluation of the fine-tuned policy, None if it is to be made.
        tasks: The tasks in whose states it acts, None for all held-in ones.
    """
    run_dir = RunDir(Path(config.run_dir))
    shutil.rmtree(run_dir.root, ignore_errors=True)
    for name in filter(lambda name: base.path(name).exists(), KEPT):
        copy = shutil.copytree if base.path(name).is_dir() else shutil.copy
        run_dir.root.mkdir(parents=True, exist_ok=True)
        copy(base.path(name), run_dir.path(name))
    if tasks is not None:
        keep_tasks(run_dir, tasks, config)
    sections = config.tasks, config.executor, config.prompt, config.observation, config.expert, config.coder
    opening = open_run_context(run_dir, *sections, Reporter())
    with (
        run_dir.lock(),
        opening as context,
        PolicyServer(
            config.server, run_dir.server_log, run_dir.temporary, max_adapter_rank=config.served_rank
        ) as server,
    ):
        server.launch(Path(config.served_base or run_dir.sft_policy))
        tokenizer = ChatTokenizer(run_dir.tokenizer, config.system_text)
        pool, _ = make_pool(config, run_dir, context, tokenizer)
        sampling = config.ppo.temperature, config.ppo.max_response_tokens, [tokenizer.eos_id]
        with connect(server, context.event_loop, *sampling) as client:
            updates, marks = learn(config, run_dir, context, client, pool, minutes, num_marks)
            if before is None:
                before = {"minutes": 0.0, "updates": 0}
                before |= evaluate(config, run_dir, context, client, run_dir.sft_policy, 0)
            for mark in marks:
                mark |= evaluate(config, run_dir, context, client, mark.pop("policy"), mark["updates"])
                print(mark["updates"], mark["held_in_gain"], file=sys.stderr, flush=True)
    return {"updates": updates, "marks": [before, *marks]}


def keep_tasks(run_dir: RunDir, tasks: Collection[str], config: Config) -> None:
    """Leave in the selection of a run the trajectories of some tasks alone."""
    selection = read_selection(run_dir.selection)
    kept = {each.trajectory_id for each in selection.read(run_dir.trajectories) if each.task in tasks}
    train, validation = (
        {name: digest for name, digest in side.items() if name in kept}
        for side in (selection.train, selection.validation)
    )
    chosen = replace(selection, train=train, validation=validation)
    write_selection(run_dir.selection, chosen, config.select, config.seed)


def learn(
    config: Config,
    run_dir: RunDir,
    context: RunContext,
    client: PolicyClient,
    pool: StatePool,
    minutes: float,
    num_marks: int,
) -> tuple[list[dict[str, float]], list[dict[str, Any]]]:
    """Return the figures of the updates in `minutes` of training, and the policies that were saved at the marks.

    A training of fewer updates ends with the last of them.
    """
    learner = make_learner(config, run_dir)
    worker = make_worker(config, run_dir, context, client, ChatTokenizer(run_dir.tokenizer, config.system_text), pool)
    updates: list[dict[str, float]] = []
    marks: list[dict[str, Any]] = []
    seconds = 0.0
    with closing(
        RolloutPrefetcher(context.event_loop, worker, config.ppo.max_staleness, config.ppo.num_updates)
    ) as prefetcher:
        sync = make_sync(
            config.server, config.model.dtype, client, run_dir.temporary / "weights", pool.states[0].prompt[:MAX_TOKENS]
        )
        leader = make_leader(config, run_dir, context, client, prefetcher, sync)
        leader.begin(0, learner)
        while len(marks) < num_marks and len(updates) < config.ppo.num_updates:
            began = time.monotonic()
            figures = one_update(learner, leader, len(updates), config.seed)
            assert figures is not None, "nothing interrupts it"
            seconds += time.monotonic() - began
            updates.append(figures)
            print(len(updates), round(seconds), figures.get("reward/mean"), file=sys.stderr, flush=True)
            if seconds >= 60 * minutes * (len(marks) + 1) / num_marks or len(updates) == config.ppo.num_updates:
                policy = run_dir.path("marks", str(len(updates)))
                save_policy(learner.model(), policy, run_dir.tokenizer, run_dir.selection, sync.canary)
                marks.append({"minutes": seconds / 60, "updates": len(updates), "policy": policy})
    return updates, marks


def evaluate(
    config: Config, run_dir: RunDir, context: RunContext, client: PolicyClient, policy: Path, number: int
) -> dict[str, Any]:
    """Return the gains and edits of a policy in whole trajectories on every task, with the same plans for all."""
    tasks = list(context.tasks.values())
    plans = plan_evaluation(tasks, config.evaluate.num_trajectories, config.seed)
    tokenizer = ChatTokenizer(run_dir.tokenizer, config.system_text)
    serve_policy(client, context.event_loop, policy, config.server)
    actor = PolicyActor(client, tokenizer, config.server.max_model_len, config.ppo.max_response_tokens)
    with Reporter().bar("evaluate", len(plans)) as bar:
        trajectories = run_episodes(
            run_dir.evaluated(str(number)), actor, plans, config, context, lambda done, total, figures: bar.update(done)
        )
    edits = edit_stats(trajectories, context.tasks, context.environment.store, config.seed, context.recognize)
    return {
        **summarize(trajectories, tasks, config.seed),
        "edits": {name: edits[name] for name in EDITS},
        "failed_by_step": failed_by_step(trajectories),
    }


def failed_by_step(trajectories: Sequence[Trajectory]) -> list[float]:
    """Return the share of the first actions of trajectories that failed, that of the second ones, and so on."""
    longest = max(len(one.steps) for one in trajectories)
    outcomes = [
        [one.steps[step].feedback.outcome for one in trajectories if step < len(one.steps)] for step in range(longest)
    ]
    return [sum(outcome in FAILED for outcome in each) / len(each) for each in outcomes]


def seconds_of_updates(way: Mapping[str, Any], config: Config) -> list[float]:
    """Return the seconds of the updates in which both networks learn, without the first, which compiles.

    If there are too few, return those of the last one.
    """
    seconds = [each["time/total_seconds"] for each in way["updates"]]
    return seconds[1 + config.ppo.critic_warmup_updates * config.ppo.has_own_critic :] or seconds[-1:]


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", choices=WAYS, nargs="+", default=list(WAYS))
    parser.add_argument("--minutes", type=float, default=8.0, help="minutes of updates for each variant")
    parser.add_argument("--marks", type=int, default=4, help="policies to save and evaluate")
    parser.add_argument("--out", type=user_path, default=Path("runs/ppo_runs"))
    parser.add_argument("--results", type=user_path, default=Path("benchmarks/results/ppo_runs"))
    parser.add_argument("--config", type=user_path, default=Path("configs/quickstart.yaml"))
    parser.add_argument("settings", nargs="*")
    arguments = parser.parse_intermixed_args()
    cpu.prepare()
    common = [*arguments.settings, f"ppo.num_updates={NUM_UPDATES}"]
    train(arguments.config, [*arguments.settings, f"run_dir={arguments.out / 'base'}"], ("collect", "sft"))
    if (arguments.out / "base" / "ppo").exists():
        sys.exit(f"{arguments.out}/base went on to PPO, whose recorded scripts would be for free; give another --out")
    found: dict[str, Any] = {}
    before = None
    for name in arguments.ways:
        config = load_config(arguments.config, [*common, *WAYS[name], f"run_dir={arguments.out / name}"])
        found[name] = measure(config, RunDir(arguments.out / "base"), arguments.minutes, arguments.marks, before)
        before = found[name]["marks"][0]
        seconds = seconds_of_updates(found[name], config)
        found[name]["update_seconds"] = {"median": statistics.median(seconds), "all": seconds}
    result = {
        "commit": commit(),
        "versions": versions(DISTRIBUTIONS),
        "machine": machine(),
        "command": shell_command("python", "-m", "benchmarks.ppo_runs", *sys.argv[1:]),
        "ways": found,
    }
    write_results(arguments.results, "ppo_runs", result, to_markdown(result))
    picture(result, arguments.results / "gain.svg")
    print(to_markdown(result))
    print(json.dumps(last_line(found)))


def last_line(ways: Mapping[str, Any]) -> dict[str, float]:
    """Return the duration of an update relative to `step`, or to the first variant if `step` was not run."""
    reference = "step" if "step" in ways else next(iter(ways))
    seconds = {name: way["update_seconds"]["median"] for name, way in ways.items()}
    return {f"ratio_{name}": round(seconds[name] / seconds[reference], 3) for name in ways if name != reference}


if __name__ == "__main__":
    main()
