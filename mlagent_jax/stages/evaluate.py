"""The evaluation: whole trajectories of the initial script, the fine-tuned policy and the PPO policy."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlagent_jax.configuration.schema import Config
from mlagent_jax.model.families import read_config
from mlagent_jax.model.hf import load_hf
from mlagent_jax.model.sharding import local_mesh
from mlagent_jax.reporting.edit_stats import edit_stats
from mlagent_jax.run.context import RunContext
from mlagent_jax.run.policy_server import PolicyServer, connected
from mlagent_jax.run.run_dir import SHARE_SECONDS, RunDir
from mlagent_jax.tracking.progress import Bar, Reporter
from mlagent_jax.weight_sync import WeightSync
from rollout.sampling.collection import EpisodePlan, collect
from rollout.sampling.episode import PolicyActor
from rollout.sampling.evaluation import InitialScriptActor, bootstrap, gain_difference, plan_evaluation, summarize
from rollout.storage.atomic_write import write_json
from rollout.storage.trajectories import read_trajectories
from rollout.tokenizer.chat import ChatTokenizer
from rollout.types import Trajectory
from tasks.prompt import problem_text
from tasks.state import State
from tasks.task import Task


def run(config: Config, run_dir: RunDir, reporter: Reporter, world: RunContext, server: PolicyServer) -> dict[str, Any]:
    """Write evaluate/<initial|sft|ppo>/ and evaluate/tried.json; returns the evaluation as `evaluation`.

    All three go through the same episodes: the same tasks under the same names with the same seeds.

    Raises:
        InfrastructureError: if the server failed, or does not sample from the weights that are evaluated.
    """
    tasks = list(world.tasks.values())
    plans = plan_evaluation(tasks, config.evaluate.num_trajectories, config.seed)
    tokenizer = ChatTokenizer(run_dir.tokenizer)
    room = {"context_limit": config.server.max_model_len, "max_response_tokens": config.ppo.max_response_tokens}
    found: dict[str, list[Trajectory]] = {}
    with reporter.bar("evaluate", 3 * len(plans), done=None) as bar:
        found["initial"] = episodes("initial", InitialScriptActor(), plans, config, run_dir, world, bar)
        with connected(config, tokenizer, world, server) as client:
            canary = tokenizer.prompt_ids(State(problem_text(plans[0].instance)))
            sync = WeightSync(client, run_dir.path("tmp", "sync"), canary, config.server.dtype)
            for name, folder in (("sft", run_dir.sft_policy), ("ppo", run_dir.ppo_policy)):
                shape = read_config(folder)
                model = load_hf(folder, config.model.dtype, local_mesh(shape.vocab_size, shape.hidden_size))
                world.background.run(sync.push(model, client.version + 1))
                actor = PolicyActor(client, tokenizer, **room)
                found[name] = episodes(name, actor, plans, config, run_dir, world, bar)
    tried = {name: edit_stats(found[name], world.tasks) for name in ("sft", "ppo")}
    write_json(run_dir.path("evaluate", "tried.json"), tried)
    return {"evaluation": evaluation(found, tasks, config.seed)}


def episodes(
    name: str,
    actor: InitialScriptActor | PolicyActor,
    plans: Sequence[EpisodePlan],
    config: Config,
    run_dir: RunDir,
    world: RunContext,
    bar: Bar,
) -> list[Trajectory]:
    """Return the trajectories of one actor, those of an interrupted evaluation included; kept in evaluate/<name>."""
    before = bar.done

    def progress(done: int, total: int, figures: Mapping[str, float]) -> None:
        bar.update(before + done, {f"gain of {name}": figures["gain"]})
        run_dir.share(SHARE_SECONDS)

    folder = run_dir.path("evaluate", name)
    world.background.run(
        collect(
            folder,
            plans,
            world.environment,
            actor,
            max_steps=config.evaluate.max_steps,
            max_seconds=60 * config.evaluate.max_minutes,
            num_concurrent=world.num_concurrent,
            progress=progress,
        )
    )
    return read_trajectories(folder)


def evaluation(found: Mapping[str, Sequence[Trajectory]], tasks: Sequence[Task], seed: int) -> dict[str, Any]:
    """Return the summary of each policy, and `ppo_minus_sft`, the paired difference of the span gains.

    Each task has `gain_interval` too, the bootstrap interval of its own mean over trajectories.
    """
    result: dict[str, Any] = {name: summarize(trajectories, tasks, seed) for name, trajectories in found.items()}
    for summary in result.values():
        for task in tasks:
            if task.name in summary["tasks"]:
                figures = summary["tasks"][task.name]
                figures["gain_interval"] = bootstrap([[task.gain(score) for score in figures["scores"]]], seed)
    difference = gain_difference(found["ppo"], found["sft"], tasks, seed)
    result["ppo_minus_sft"] = {f"{split}_gain": interval for split, interval in difference.items()}
    return result
