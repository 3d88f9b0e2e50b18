"""Run an evaluation: every agent on every task and seed, as far as it is not done."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from mlagent_jax.agents.policy import POLICY_REQUESTS
from mlagent_jax.configuration.schema import Tasks
from mlagent_jax.evaluating import automl
from mlagent_jax.evaluating.agents import OpenAgent, open_agent, open_coder
from mlagent_jax.evaluating.grading_report import grading_report
from mlagent_jax.evaluating.options import CODER, AgentSpec, EvaluateLayout, EvaluateOptions, as_json, shown
from mlagent_jax.evaluating.page import render_page
from mlagent_jax.evaluating.records import (
    attempts_of,
    comparable_agents,
    is_complete,
    keep_identity,
    mark_complete,
    read_usage,
    require_own_folder,
    write_usage,
)
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
from rollout.types import Coder, Executor, Trajectory
from tasks.entry import Medals
from tasks.error_line import joined
from tasks.registry import entries
from tasks.reward import PAPER
from tasks.task import Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bench:
    """The parts that all agents share.

    Attributes:
        options: The options.
        layout: The folder of the results.
        tasks: The tasks by name.
        store: The contents of workspaces.
        executor: The sandboxes.
        coder: The writer of edits.
        coder_figures: A function that returns the coder's tokens and dollars so far.
        event_loop: The thread whose event loop actions run on.
        reporter: Notes and progress.
    """

    options: EvaluateOptions
    layout: EvaluateLayout
    tasks: Mapping[str, Task]
    store: BlobStore
    executor: Executor
    coder: Coder
    coder_figures: Callable[[], dict[str, Any]]
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
    require_own_folder(layout)
    if any(agent.where == "automl" for agent in options.agents):
        automl.require_flaml()
    layout.agents.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(locked(layout.root, f"{layout.root} is in use", "choose another --out"))
        stack.enter_context(logging_to(layout.log, reporter.console))
        stack.enter_context(temporary_files_in(layout.temporary))
        raw = None if options.raw is None else str(options.raw)
        section = Tasks(held_in=options.tasks, held_out=(), paths=tuple(map(str, options.paths)), raw=raw)
        tasks = prepare(section, layout.data, task_python(None), reporter)
        for agent in options.agents:
            keep_identity(agent, options, layout, tasks)
        store = BlobStore(layout.blobs)
        opened = stack.enter_context(open_executor(ExecutorOptions(slots=options.slots), store, layout.result_cache))
        event_loop = stack.enter_context(EventLoopThread())
        coder, figures = stack.enter_context(open_coder(options, layout, event_loop))
        bench = Bench(options, layout, tasks, store, opened.executor, coder, figures, event_loop, reporter)
        failures: dict[str, Exception] = {}
        result: dict[str, Any] = {"agents": {}}
        for agent in options.agents:
            try:
                _evaluate(agent, bench)
            except (InfrastructureError, ValueError) as error:
                failures[agent.name] = error
                logger.warning("%s failed: %s; the same command tries it again", agent.name, error)
            result = write_results(bench, failures)
        if not result["agents"]:
            raise next(iter(failures.values()))
        return result


def _evaluate(agent: AgentSpec, bench: Bench) -> None:
    """Bring the attempts of an agent up to date.

    Raises:
        ValueError: If the agent cannot be used, or its budget is spent.
        InfrastructureError: If it, or one of its episodes, failed.
    """
    options, layout = bench.options, bench.layout
    if agent.where == "automl":
        with bench.reporter.bar(agent.name, options.seeds * len(bench.tasks)) as bar:
            for seed in range(options.seeds):
                for task in bench.tasks.values():
                    bench.event_loop.run(automl.attempt(task, seed, options, layout.seed(agent.name, seed)))
                    bar.update(bar.done + 1)
        seconds = sum(one.seconds for one in attempts_of(agent, options, layout, bench.tasks))
        write_usage(layout, agent.name, {"seconds": seconds})
        return
    if all(is_complete(layout.seed(agent.name, seed)) for seed in range(options.seeds)):
        return
    before, began = read_usage(layout, agent.name).get("seconds", 0.0), time.monotonic()
    opening = open_agent(agent, options, layout.agent(agent.name), layout.exchanges, bench.event_loop)
    with opening as opened:
        try:
            for seed in range(options.seeds):
                _act(agent, opened, bench, seed)
        finally:
            seconds = before + time.monotonic() - began
            write_usage(layout, agent.name, {"seconds": seconds, **opened.figures()})


def _act(agent: AgentSpec, opened: OpenAgent, bench: Bench, seed: int) -> None:
    """Run the trajectories of one seed that are missing."""
    options, settings = bench.options, opened.settings
    folder = bench.layout.seed(agent.name, seed)
    if is_complete(folder):
        return
    environment = Environment(
        bench.store, bench.executor, bench.coder, settings.observation, settings.prompt.show_script
    )
    for task in bench.tasks.values():
        environment.store_data(task)
    plans = opened.prepare(plan_evaluation(list(bench.tasks.values()), options.k, seed))
    label = agent.name if options.seeds == 1 else f"{agent.name}, seed {seed}"
    with bench.reporter.bar(label, len(plans), done=None) as bar:
        found = bench.event_loop.run(
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
    if found["num_trajectories"] < len(plans):
        lost = len(plans) - int(found["num_trajectories"])
        raise InfrastructureError(f"{lost} of {len(plans)} episodes were lost to failures; the log has their causes")
    mark_complete(folder)


def write_results(bench: Bench, failures: Mapping[str, Exception]) -> dict[str, Any]:
    """Write results.json, the pages and the grading reports of what is complete so far, and return the results.

    Agents that the folder has results of on the same tasks and limits are among them.
    """
    options, layout, made = bench.options, bench.layout, datetime.now(UTC)
    medals = _medals(options)
    agents = comparable_agents(options, layout)
    found = {agent.name: own for agent in agents if (own := attempts_of(agent, options, layout, bench.tasks))}
    usage = {name: read_usage(layout, name) for name in found}
    result = {
        **summarize(found, bench.tasks, medals, seed=0),
        "where": {agent.name: shown(agent.where) for agent in agents},
        "usage": {**usage, **({CODER: figures} if (figures := bench.coder_figures()) else {})},
        "failures": {name: joined(str(error)) for name, error in failures.items()},
        "options": as_json(options),
        "made": made.isoformat(),
        "commit": commit(),
        "versions": versions(DISTRIBUTIONS),
    }
    write_json(layout.results, result)
    for name, attempts in found.items():
        for seed in sorted({attempt.seed for attempt in attempts}):
            report = grading_report(attempts, bench.tasks, medals, seed, made)
            write_json(layout.reports / name / f"seed-{seed}.json", report)
    groups = {
        agent.name: _trajectories(bench, agent) for agent in agents if agent.where != "automl" and agent.name in found
    }
    write_page(layout.trajectories, groups, bench.tasks, PAPER, layout.root.name, bench.store)
    write_text(layout.report, render_page(result))
    return result


def _trajectories(bench: Bench, agent: AgentSpec) -> Iterator[Trajectory]:
    for seed in range(bench.options.seeds):
        if is_complete(folder := bench.layout.seed(agent.name, seed)):
            for trajectory in iterate_trajectories(folder):
                yield replace(trajectory, trajectory_id=f"{agent.name}-{trajectory.trajectory_id}")


def _medals(options: EvaluateOptions) -> dict[str, Medals]:
    known = entries(options.paths)
    return {name: found for name in options.tasks if (found := known[name].medals) is not None}
