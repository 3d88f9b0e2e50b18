"""Run an evaluation: every agent on every task and seed, as far as it is not done."""

import json
import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlagent_jax.agents.policy import POLICY_REQUESTS
from mlagent_jax.configuration.schema import Tasks
from mlagent_jax.evaluating import automl
from mlagent_jax.evaluating.agents import OpenAgent, open_agent, open_coder
from mlagent_jax.evaluating.attempts import Attempt, from_trajectory
from mlagent_jax.evaluating.grading_report import grading_report
from mlagent_jax.evaluating.options import AgentSpec, EvaluateLayout, EvaluateOptions, as_json
from mlagent_jax.evaluating.page import render_page
from mlagent_jax.evaluating.statistics import summarize
from mlagent_jax.reporting.summary import DISTRIBUTIONS, commit, versions
from mlagent_jax.run.context import prepare
from mlagent_jax.run.run_dir import temporary_files_in
from mlagent_jax.tracking.logs import logging_to
from mlagent_jax.tracking.progress import Reporter
from rollout.dataset.viewer.page import write_page
from rollout.environment.environment import Environment
from rollout.errors import InfrastructureError
from rollout.executor import open_executor
from rollout.executor.interpreter import task_python
from rollout.options import ExecutorOptions
from rollout.runtime.event_loop import EventLoopThread
from rollout.sampling.collection import collect
from rollout.sampling.evaluation import plan_evaluation
from rollout.storage.atomic_write import write_json, write_text
from rollout.storage.blob_store import BlobStore
from rollout.storage.folder_lock import locked
from rollout.storage.trajectories import iterate_trajectories
from rollout.types import Coder, Executor
from tasks.entry import Medals
from tasks.registry import entries
from tasks.reward import PAPER
from tasks.task import Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bench:
    """What all agents share.

    Attributes:
        options: The options.
        layout: The folder of the results.
        tasks: The tasks by name.
        store: The contents of workspaces.
        executor: The sandboxes.
        coder: The writer of edits.
        event_loop: The thread whose event loop actions run on.
        reporter: Notes and progress.
    """

    options: EvaluateOptions
    layout: EvaluateLayout
    tasks: Mapping[str, Task]
    store: BlobStore
    executor: Executor
    coder: Coder
    event_loop: EventLoopThread
    reporter: Reporter


def evaluate_agents(options: EvaluateOptions, reporter: Reporter) -> dict[str, Any]:
    """Return the results of every agent that could be evaluated, which are also in the folder `options.out`.

    What the folder holds is not done again. An agent that fails is reported, and the others go on.

    Raises:
        ValueError: If an option or a task cannot be used, or the folder holds other results.
        InfrastructureError: If no agent could be evaluated.
    """
    layout = EvaluateLayout(options.out)
    layout.root.mkdir(parents=True, exist_ok=True)
    if any(agent.where == "automl" for agent in options.agents):
        automl.require_flaml()
    with ExitStack() as stack:
        stack.enter_context(locked(layout.root, f"{layout.root} is in use", "choose another --out"))
        stack.enter_context(logging_to(layout.log, reporter.console))
        stack.enter_context(temporary_files_in(layout.temporary))
        for agent in options.agents:
            _keep_identity(options, layout, agent)
        section = Tasks(
            held_in=options.tasks, held_out=(), paths=tuple(map(str, options.paths)), raw=_text(options.raw)
        )
        tasks = prepare(section, layout.data, task_python(None), reporter)
        store = BlobStore(layout.blobs)
        opened = stack.enter_context(open_executor(ExecutorOptions(slots=options.slots), store, layout.result_cache))
        event_loop = stack.enter_context(EventLoopThread())
        coder = stack.enter_context(open_coder(options, layout.exchanges, event_loop))
        bench = Bench(options, layout, tasks, store, opened.executor, coder, event_loop, reporter)
        failures: dict[str, str] = {}
        usage: dict[str, dict[str, Any]] = {}
        for agent in options.agents:
            try:
                usage[agent.name] = _evaluate(agent, bench)
            except InfrastructureError as error:
                failures[agent.name] = str(error)
                logger.warning("%s failed: %s; the same command tries it again", agent.name, error)
            write_results(bench, usage, failures)
        if len(failures) == len(options.agents):
            raise InfrastructureError("; ".join(f"{name}: {why}" for name, why in failures.items()))
        return write_results(bench, usage, failures)


def _evaluate(agent: AgentSpec, bench: Bench) -> dict[str, Any]:
    """Bring the trajectories of an agent up to date, and return its usage."""
    options, layout = bench.options, bench.layout
    began = time.monotonic()
    if agent.where == "automl":
        with bench.reporter.bar(agent.name, options.seeds * len(bench.tasks)) as bar:
            for seed in range(options.seeds):
                for task in bench.tasks.values():
                    bench.event_loop.run(automl.attempt(task, seed, options, layout.seed(agent.name, seed)))
                    bar.update(bar.done + 1)
        return {"seconds": time.monotonic() - began}
    if all(_is_done(layout.seed(agent.name, seed)) for seed in range(options.seeds)):
        return _usage(layout, agent)
    opening = open_agent(agent, options, layout.agent(agent.name), layout.exchanges, bench.event_loop)
    with opening as opened:
        for seed in range(options.seeds):
            _act(agent, opened, bench, seed)
        figures = opened.figures()
    spent = _usage(layout, agent).get("seconds", 0.0) + time.monotonic() - began
    write_json(layout.agent(agent.name) / "usage.json", {"seconds": spent, **figures})
    return _usage(layout, agent)


def _act(agent: AgentSpec, opened: OpenAgent, bench: Bench, seed: int) -> None:
    """Run the trajectories of one seed that are missing."""
    options, settings = bench.options, opened.settings
    folder = bench.layout.seed(agent.name, seed)
    if _is_done(folder):
        return
    environment = Environment(
        bench.store, bench.executor, bench.coder, settings.observation, settings.prompt.show_script
    )
    for task in bench.tasks.values():
        environment.store_data(task)
    plans = opened.prepare(plan_evaluation(list(bench.tasks.values()), options.k, seed))
    label = agent.name if options.seeds == 1 else f"{agent.name}, seed {seed}"
    with bench.reporter.bar(label, len(plans), done=None) as bar:
        bench.event_loop.run(
            collect(
                folder,
                plans,
                environment,
                opened.actor,
                max_steps=options.steps,
                max_seconds=60 * options.minutes,
                num_concurrent=max(2 * options.slots, min(opened.requests, POLICY_REQUESTS)),
                progress=lambda done, total, figures: bar.update(done, {"gain": figures["gain"]}),
            )
        )
    write_text(folder / "DONE", "")


def attempts_of(agent: AgentSpec, bench: Bench) -> list[Attempt]:
    """Return the attempts of an agent that are recorded."""
    found = []
    for seed in range(bench.options.seeds):
        folder = bench.layout.seed(agent.name, seed)
        if agent.where == "automl":
            files = [folder / f"{name}.json" for name in bench.tasks]
            found += [Attempt(**json.loads(file.read_text())) for file in files if file.exists()]
        elif _is_done(folder):
            found += [from_trajectory(one, bench.tasks[one.task], seed) for one in iterate_trajectories(folder)]
    return found


def write_results(bench: Bench, usage: Mapping[str, Mapping[str, Any]], failures: Mapping[str, str]) -> dict[str, Any]:
    """Write results.json, the pages and the grading reports of what is recorded so far, and return the results."""
    options, layout, made = bench.options, bench.layout, datetime.now(UTC)
    medals = _medals(options)
    found = {agent.name: own for agent in options.agents if (own := attempts_of(agent, bench))}
    result = {
        **summarize(found, bench.tasks, medals, seed=0),
        "usage": dict(usage),
        "failures": dict(failures),
        "options": as_json(options),
        "made": made.isoformat(),
        "commit": commit(),
        "versions": versions(DISTRIBUTIONS),
    }
    write_json(layout.results, result)
    for name, attempts in found.items():
        for seed in range(options.seeds):
            report = grading_report(attempts, bench.tasks, medals, seed, made)
            write_json(layout.reports / name / f"seed-{seed}.json", report)
    groups = {
        agent.name: _trajectories(bench, agent)
        for agent in options.agents
        if agent.where != "automl" and agent.name in found
    }
    write_page(layout.trajectories, groups, bench.tasks, PAPER, layout.root.name, bench.store)
    write_text(layout.report, render_page(result))
    return result


def _trajectories(bench: Bench, agent: AgentSpec) -> Any:
    for seed in range(bench.options.seeds):
        if _is_done(folder := bench.layout.seed(agent.name, seed)):
            for trajectory in iterate_trajectories(folder):
                yield replace(trajectory, trajectory_id=f"{agent.name}-{trajectory.trajectory_id}")


def _medals(options: EvaluateOptions) -> dict[str, Medals]:
    known = entries(options.paths)
    return {name: found for name in options.tasks if (found := known[name].medals) is not None}


def _keep_identity(options: EvaluateOptions, layout: EvaluateLayout, agent: AgentSpec) -> None:
    """Record what an agent's results depend on; raise ValueError if the folder holds other results of that name."""
    file, identity = layout.agent(agent.name) / "agent.json", options.identity(agent)
    if file.exists():
        before = json.loads(file.read_text())
        changed = sorted(key for key in identity.keys() | before.keys() if identity.get(key) != before.get(key))
        if changed:
            key = changed[0]
            raise ValueError(
                f"{layout.root} holds results of {agent.name} with {key}={before.get(key)}, not {identity.get(key)}; "
                "give the agent another name, or choose another --out"
            )
    else:
        write_json(file, identity)


def _is_done(folder: Path) -> bool:
    return (folder / "DONE").exists()


def _usage(layout: EvaluateLayout, agent: AgentSpec) -> dict[str, Any]:
    file = layout.agent(agent.name) / "usage.json"
    return json.loads(file.read_text()) if file.exists() else {}


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
