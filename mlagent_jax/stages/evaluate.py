"""The stage `evaluate`: whole trajectories of the initial script and of the policy in its stages of training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlagent_jax.configuration.schema import Config, Server
from mlagent_jax.reporting.edit_stats import edit_stats
from mlagent_jax.run.context import RunContext
from mlagent_jax.run.policy_server import connect
from mlagent_jax.run.run_dir import SYNC_SECONDS
from mlagent_jax.stages.stage import Stage, StageContext
from rollout.inference.canary_file import read_canary
from rollout.inference.client import PolicyClient
from rollout.inference.weight_files import check_same_tensors
from rollout.runtime.event_loop import EventLoopThread
from rollout.sampling.collection import EpisodePlan, Progress, collect
from rollout.sampling.episode import PolicyActor
from rollout.sampling.evaluation import InitialScriptActor, gain_difference, plan_evaluation, summarize
from rollout.sampling.intervals import bootstrap
from rollout.storage.atomic_write import write_json
from rollout.storage.digests import require_policy
from rollout.storage.run_layout import EVALUATION
from rollout.storage.trajectories import read_trajectories
from rollout.tokenizer.chat import ChatTokenizer
from rollout.types import Trajectory
from tasks.checksum import sealed
from tasks.response_grammar import response_grammar
from tasks.task import Task


class Evaluate(Stage):
    """Evaluate the initial script, the fine-tuned policy and the PPO policy on every task.

    `evaluate.pretrained` adds the checkpoint that training starts from. All run the same episodes: the same tasks under
    the same names with the same seeds.
    """

    name = "evaluate"
    settings = ("seed", "tasks.held_in", "tasks.held_out", "prompt", "observation", "evaluate")
    after = ("sft", "ppo")
    outputs = (EVALUATION,)
    acts = True
    samples = True
    leaves_trajectories = True

    def check(self, config: Config) -> None:
        """Check that the server of the fine-tuned policy can take the weights of the checkpoint at `model.path`.

        Raises:
            ValueError: If it cannot. A checkpoint in fp64, or with a head that equals the embedding, can be trained,
                but not served as it is.
        """
        if config.evaluate.pretrained and config.model.path is not None:
            from mlagent_jax.model.hf import hf_shapes
            from mlagent_jax.model.sizes import checkpoint_config

            shapes = hf_shapes(checkpoint_config(config.model, config.tokenizer.vocab_size, config.mesh))
            try:
                check_same_tensors(Path(config.model.path), shapes)
            except ValueError as error:
                raise ValueError(f"evaluate.pretrained=true: {error}; set evaluate.pretrained=false") from None

    def run(self, context: StageContext) -> dict[str, Any]:
        """Write `evaluate/<policy>/` and the statistics of edits; return the evaluation as `evaluation`.

        The other figures are counts of each policy's episodes.

        Raises:
            InfrastructureError: If the server failed, or does not sample from the weights that are evaluated.
        """
        config, run_dir, run_context = context.config, context.run_dir, context.run_context
        require_policy(run_dir, "sft", "ppo")
        tasks = list(run_context.tasks.values())
        plans = plan_evaluation(tasks, config.evaluate.num_trajectories, config.seed)
        tokenizer = ChatTokenizer(run_dir.tokenizer, config.system_text)
        max_tokens = config.ppo.max_response_tokens
        policies = {"sft": run_dir.sft_policy, "ppo": run_dir.ppo_policy}
        if config.evaluate.pretrained and config.model.path is not None:
            policies = {"pretrained": Path(config.model.path), **policies}
        found: dict[str, list[Trajectory]] = {}
        counts: dict[str, dict[str, float]] = {}
        run_context.scheduler.take()  # scripts of earlier stages
        with context.reporter.bar("evaluate", (1 + len(policies)) * len(plans), done=None) as bar:

            def episodes(name: str, actor: InitialScriptActor | PolicyActor) -> list[Trajectory]:
                before = bar.done

                def progress(done: int, total: int, figures: Mapping[str, float]) -> None:
                    del total
                    counts[name] = {key: value for key, value in figures.items() if key.startswith("num_")}
                    bar.update(before + done, {f"gain of {name}": figures["gain"]})
                    run_dir.sync_remote(SYNC_SECONDS)

                return run_episodes(run_dir.evaluated(name), actor, plans, config, run_context, progress)

            found["initial"] = episodes("initial", InitialScriptActor())
            grammar = response_grammar(max_tokens) if config.evaluate.constrained else None
            sampling = config.ppo.temperature, max_tokens, [tokenizer.eos_id], grammar
            with connect(context.server, run_context.event_loop, *sampling) as client:
                if grammar is not None:
                    run_context.event_loop.run(client.check_grammars(tokenizer.encode, tokenizer.decode))
                for name, policy in policies.items():
                    canary = run_dir.pretrained_canary if name == "pretrained" else policy
                    serve_policy(client, run_context.event_loop, policy, config.server, canary)
                    actor = PolicyActor(client, tokenizer, config.server.max_model_len, max_tokens)
                    found[name] = episodes(name, actor)
        store, recognize = run_context.environment.store, run_context.recognize
        stats = {name: edit_stats(found[name], run_context.tasks, store, config.seed, recognize) for name in policies}
        write_json(run_dir.edit_stats, sealed(stats))
        result = evaluation(found, tasks, config.seed)
        num_trajectories = sum(map(len, found.values()))
        context.log_result(self.name, {"num_trajectories": num_trajectories, **mean_gains(result)})
        for name, figures in counts.items():
            of_tasks = result[name]["tasks"].values()
            unsubmitted = sum(not each["submitted_share"] for each in of_tasks)
            figures |= {"num_tasks": len(of_tasks), "num_tasks_unsubmitted": unsubmitted}
        return {"evaluation": result, **counts, **run_context.scheduler.take().flat()}


STAGE = Evaluate()


def serve_policy(
    client: PolicyClient, event_loop: EventLoopThread, policy: Path, server: Server, canary_folder: Path | None = None
) -> None:
    """Make the server sample from a policy, as the next version.

    Args:
        client: The client of the server.
        event_loop: The thread whose event loop makes the requests.
        policy: The Hugging Face directory of the policy.
        server: The section `server`.
        canary_folder: The folder of its canary; None if that is in the directory, as in one that the run has saved.

    Raises:
        ServerError: If the server refused the weights, or does not give the log-probabilities saved with them.
    """
    canary, digests = read_canary(canary_folder or policy, server.dtype, max_length=server.max_model_len - 1)
    event_loop.run(client.update_weights(policy, client.version + 1, digests, canary))


def run_episodes(
    folder: Path,
    actor: InitialScriptActor | PolicyActor,
    plans: Sequence[EpisodePlan],
    config: Config,
    context: RunContext,
    progress: Progress,
) -> list[Trajectory]:
    """Return the trajectories of one actor, kept in `folder`; those of an interrupted evaluation are not repeated."""
    context.event_loop.run(
        collect(
            folder,
            plans,
            context.environment,
            actor,
            max_steps=config.evaluate.max_steps,
            max_seconds=60 * config.evaluate.max_minutes,
            num_concurrent=context.num_concurrent,
            progress=progress,
        )
    )
    return read_trajectories(folder)


def evaluation(found: Mapping[str, Sequence[Trajectory]], tasks: Sequence[Task], seed: int) -> dict[str, Any]:
    """Return the summary of each policy, and `ppo_minus_sft`, the paired difference of the gains.

    Each task also has `gain_interval`, the bootstrap interval of its own mean over trajectories.
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


def mean_gains(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the mean gains of each policy and split, flat, such as `ppo/held_out_gain`."""
    return {
        f"{policy}/{name}": value["mean"]
        for policy, summary in result.items()
        for name, value in summary.items()
        if name.endswith("_gain")
    }
