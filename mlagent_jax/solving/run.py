"""Solve a problem: search, choose, measure, fit on all rows, and write what the user gets."""

import random
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mlagent_jax.run.run_dir import locked, temporary_files_in
from mlagent_jax.solving.agents import PolicySettings, Team, describe_sending, open_team
from mlagent_jax.solving.delivery import deliver
from mlagent_jax.solving.finalists import (
    NUM_CROSS_VALIDATED,
    NUM_FINALISTS,
    find_finalists,
    rank_by_cross_validation,
    report_by_cross_validation,
)
from mlagent_jax.solving.live import show_progress
from mlagent_jax.solving.options import SolveLayout, SolveOptions
from mlagent_jax.solving.own_script import PrintedScore, score_pattern, script_problem, with_first_score
from mlagent_jax.solving.page import write_page
from mlagent_jax.solving.problem import Problem, load_problem
from mlagent_jax.solving.result import SolveResult, finalist_rows, optimism_of, outcome_counts
from mlagent_jax.tracking.logs import logging_to
from mlagent_jax.tracking.progress import Reporter
from rollout.environment.environment import Environment
from rollout.executor import open_executor
from rollout.executor.interpreter import task_python
from rollout.options import ExecutorOptions
from rollout.runtime.event_loop import EventLoopThread
from rollout.search.rules import make_rule
from rollout.search.search import Budget, Search
from rollout.search.tree import SearchTree
from rollout.storage.atomic_write import write_json
from rollout.storage.blob_store import BlobStore
from rollout.storage.journal import Journal
from rollout.types import Executor
from tasks.holdout import compare
from tasks.naming import draw_names
from tasks.prompt import problem_text
from tasks.task import Instance

RESERVED_SHARE, RESERVED_SECONDS = 0.1, 20.0  # of the time, for the choice and the fit on all rows, at least
SMALL_RESERVED_SHARE = 0.35  # if these include cross-validation


def solve(*, resumes: bool = False, **options: Any) -> SolveResult:
    """Let an agent improve a script on a user's table or a task, and return the result.

    Args:
        resumes: Whether to go on with the search in `out`.
        options: The fields of `mlagent_jax.solving.options.SolveOptions`, such as `csv`, `target`, `out` and `minutes`.

    Raises:
        ValueError: If the problem cannot be solved as stated. The message has a remedy.
        InfrastructureError: If the sandbox, the server or an endpoint failed.
    """
    return solve_problem(SolveOptions(**options), Reporter(), resumes)


def solve_problem(options: SolveOptions, reporter: Reporter, resumes: bool = False) -> SolveResult:
    """Return what an agent found within the budget; everything is in the folder `options.out`.

    Args:
        options: What to solve, with which agent, and within which budget.
        reporter: The receiver of notes and of the progress.
        resumes: Whether to go on with the search in the folder. Its time and its actions count.

    Raises:
        ValueError: If the problem cannot be solved as stated. The message has a remedy.
        InfrastructureError: If the sandbox, the server or an endpoint failed.
    """
    began = time.monotonic()
    layout = SolveLayout(options.out)
    if layout.search.exists() and not resumes:
        raise ValueError(f"{options.out} holds a search already; go on with --resume, or choose another --out")
    layout.work.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(locked(layout.lock, f"{options.out} is in use", "choose another --out"))
        stack.enter_context(logging_to(layout.log, reporter.console))
        stack.enter_context(temporary_files_in(layout.temporary))
        load = script_problem if options.script else load_problem
        problem = load(options, layout, reporter.note)
        store = BlobStore(layout.blobs)
        python = task_python(str(options.python) if options.python else None)
        executor = ExecutorOptions(slots=options.slots, python=str(python))
        opened = stack.enter_context(open_executor(executor, store, layout.result_cache))
        event_loop = stack.enter_context(EventLoopThread())
        team = stack.enter_context(open_team(options, layout, problem.task, event_loop))
        runner: Executor = opened.executor
        if options.script:
            runner = PrintedScore(runner, score_pattern(options.score), problem.task.metric)
            problem = event_loop.run(with_first_score(problem, runner, store, draw_instance(problem, options.seed)))
        settings = team.settings
        environment = Environment(store, runner, team.coder, settings.observation, settings.prompt.show_script)
        tree = start_tree(problem, environment, options.seed)
        prepared = time.monotonic() - began
        reserved = SMALL_RESERVED_SHARE if problem.is_small else RESERVED_SHARE
        end = search(options, tree, environment, team, layout.search, event_loop, reporter, prepared, reserved)
        reporter.note(f"choosing among the best of {tree.num_actions} actions")
        left = 60 * options.minutes - (time.monotonic() - began)
        return finish(options, layout, problem, tree, environment, team, event_loop, python, end, left)


def finish(
    options: SolveOptions,
    layout: SolveLayout,
    problem: Problem,
    tree: SearchTree,
    environment: Environment,
    team: Team,
    event_loop: EventLoopThread,
    python: Path,
    end: str,
    seconds: float,
) -> SolveResult:
    """Choose a script, measure it on rows that chose nothing, fit it on all, and write and return the result.

    Args:
        end: The reason for the end of the search.
        seconds: The time that is left.
    """
    task = problem.task
    deadline = time.monotonic() + seconds
    most = NUM_CROSS_VALIDATED if problem.is_small else NUM_FINALISTS
    finalists = event_loop.run(find_finalists(tree, environment, most))
    validation = problem, environment, layout.temporary / "folds", options.seed
    if problem.is_small:
        finalists = event_loop.run(rank_by_cross_validation(finalists, *validation))
    left = max(1.0, deadline - time.monotonic())
    delivery = event_loop.run(deliver(problem, tree, finalists, environment, layout.best, python, left))
    best, initial = delivery.finalist, next(each for each in finalists if each.node is tree.root)
    report = None
    if problem.is_small:
        report = event_loop.run(report_by_cross_validation(best, initial, *validation))
    elif problem.report is not None:
        report = compare(task, problem.report, best.submission, initial.submission, options.seed)
    result = SolveResult(
        task=task.name,
        metric=task.metric,
        direction=task.direction,
        search=options.search,
        agent=options.model or options.agent,
        coder=options.coder_model or options.coder,
        end=end,
        num_actions=tree.num_actions,
        num_scripts=sum(bool(node.script) for node in tree.nodes),
        outcomes=outcome_counts(tree),
        seconds=tree.nodes[-1].seconds,
        best=layout.best,
        files=delivery.files,
        validation=best.validation,
        chosen=best.chosen,
        initial={"validation": initial.validation, "chosen": initial.chosen},
        report=report,
        optimism=optimism_of(task.direction, best.validation, report),
        finalists=finalist_rows(finalists, delivery),
        script=problem.own_script or "train.py",
        is_cross_validated=problem.is_small,
        endpoints=team.figures(),
        notes=delivery.notes,
    )
    write_page(layout.report, result, tree, environment.store, best.node)
    write_json(layout.result, result.to_json())
    return result


def dry_run(options: SolveOptions) -> str:
    """Return what a search would send to which endpoint. The table is read, and nothing is kept or sent.

    Raises:
        ValueError: If the problem cannot be solved as stated.
    """
    with tempfile.TemporaryDirectory() as folder:
        layout = SolveLayout(Path(folder))
        load = script_problem if options.script else load_problem
        problem = load(options, layout, lambda _: None)
        instance = draw_instance(problem, options.seed)
        settings = PolicySettings()
        script = f"\n{instance.script_source()}" if settings.prompt.show_script else ""
        return describe_sending(options, settings.system, problem_text(instance, script=script))


def start_tree(problem: Problem, environment: Environment, seed: int) -> SearchTree:
    """Return a search with nothing but the initial script, under names that depend on the seed."""
    environment.store_data(problem.task)
    instance = draw_instance(problem, seed)
    return SearchTree(instance, environment.problem(instance), environment.start(instance))


def draw_instance(problem: Problem, seed: int) -> Instance:
    """Return the problem under names that depend on the seed."""
    return Instance(problem.task, draw_names(random.Random(f"{seed}/names"), problem.task.split == "held_out"))


def search(
    options: SolveOptions,
    tree: SearchTree,
    environment: Environment,
    team: Team,
    journal: Path,
    event_loop: EventLoopThread,
    reporter: Reporter,
    prepared: float,
    reserved_share: float,
) -> str:
    """Grow the tree until the budget is spent, and return the reason for the end; an interrupt is one.

    Args:
        prepared: The seconds that the preparation took.
        reserved_share: The share of the time that is kept for what follows the search.
    """
    rule = make_rule(options.search, options.trajectories, options.steps)
    seconds = 60 * options.minutes
    reserved = max(reserved_share * seconds, min(RESERVED_SECONDS, seconds / 2))
    with Journal(journal) as opened:
        running = Search(tree, environment, team.agent, rule, opened)
        budget = Budget(options.steps * options.trajectories, seconds - reserved - prepared)
        with show_progress(tree, budget, reporter) as progress:
            try:
                event_loop.run(running.run(budget, options.seed, team.num_concurrent(options.slots), progress.update))
            except KeyboardInterrupt:
                reporter.note("interrupted; writing the best so far")
                return "interrupted"
    return running.end
