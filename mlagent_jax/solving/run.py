"""Solve a problem: search within the budget, then conclude."""

import logging
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from mlagent_jax.agents.policy import PolicySettings
from mlagent_jax.run.run_dir import temporary_files_in
from mlagent_jax.solving.agents import describe_sending, open_team
from mlagent_jax.solving.conclusion import conclude
from mlagent_jax.solving.live import show_progress
from mlagent_jax.solving.options import PATHS, SolveLayout, SolveOptions
from mlagent_jax.solving.own_script import PrintedScore, score_pattern, script_problem, with_first_score
from mlagent_jax.solving.problem import Problem, load_problem
from mlagent_jax.solving.result import SolveResult
from mlagent_jax.solving.same_problem import keep_or_clear, mark_prepared
from mlagent_jax.solving.session import Session
from mlagent_jax.tracking.logs import logging_to
from mlagent_jax.tracking.progress import Reporter
from rollout.environment.environment import Environment
from rollout.errors import InfrastructureError
from rollout.executor import open_executor
from rollout.executor.interpreter import task_python
from rollout.options import ExecutorOptions
from rollout.runtime.event_loop import EventLoopThread
from rollout.search.rules import make_rule
from rollout.search.search import Budget, Search
from rollout.search.tree import SearchTree
from rollout.storage.atomic_write import write_atomically
from rollout.storage.blob_store import BlobStore
from rollout.storage.folder_lock import locked
from rollout.storage.journal import Journal
from rollout.types import Executor
from tasks.prompt import problem_text
from tasks.quoting import user_path
from tasks.task import Instance, draw_instance

logger = logging.getLogger(__name__)

RESERVED_SHARE, RESERVED_SECONDS = 0.1, 20.0  # of the time, for the choice and the fit on all rows, at least
SMALL_RESERVED_SHARE = 0.35  # if these include cross-validation


def solve(*, resumes: bool = False, **options: Any) -> SolveResult:
    """Let an agent improve a script on a user's table or a task, and return the result.

    Args:
        resumes: Whether to go on with the search in `out`.
        options: The fields of `mlagent_jax.solving.options.SolveOptions`, such as `csv`, `target`, `out` and `minutes`;
            paths may be text.

    Raises:
        ValueError: If the problem cannot be solved as stated. The message has a remedy.
        InfrastructureError: If the sandbox, the server or an endpoint failed.
    """
    paths = {name: user_path(str(options[name])) for name in PATHS if options.get(name) is not None}
    return solve_problem(SolveOptions(**{**options, **paths}), Reporter(), resumes)


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
    options.require_files()
    layout = SolveLayout(options.out)
    if layout.search.exists() and not resumes:
        raise ValueError(f"{options.out} holds a search already; go on with --resume, or choose another --out")
    layout.work.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(locked(layout.work, f"{options.out} is in use", "choose another --out"))
        stack.enter_context(logging_to(layout.log, reporter.console))
        stack.enter_context(temporary_files_in(layout.temporary))
        identity = keep_or_clear(options, layout)
        write_atomically(layout.options, TypeAdapter(SolveOptions).dump_json(options.absolute(), indent=1))
        session = stack.enter_context(open_session(options, layout, identity, reporter.note))
        end = search(session, reporter)
        reporter.note(f"choosing among the best of {session.tree.num_actions} actions")
        return conclude(session, end, reporter.note)


@contextmanager
def open_session(
    options: SolveOptions, layout: SolveLayout, identity: str, say: Callable[[str], None]
) -> Iterator[Session]:
    """Prepare the problem and yield what a search needs; leaving the block ends every script and server."""
    began = time.monotonic()
    problem = load(options, layout, say)
    mark_prepared(layout, identity)
    store = BlobStore(layout.blobs)
    python = task_python(str(options.python) if options.python else None)
    executor = ExecutorOptions(slots=options.slots, python=str(python))
    with (
        open_executor(executor, store, layout.result_cache) as opened,
        EventLoopThread() as event_loop,
        open_team(options, layout, problem.task, event_loop) as team,
    ):
        runner: Executor = opened.executor
        if options.script:
            runner = PrintedScore(runner, score_pattern(options.score), problem.task.metric)
            problem = event_loop.run(with_first_score(problem, runner, store, first_instance(problem, options.seed)))
        settings = team.settings
        environment = Environment(store, runner, team.coder, settings.observation, settings.prompt.show_script)
        tree = start_tree(problem, environment, options.seed)
        yield Session(options, layout, problem, tree, environment, team, event_loop, python, began)


def load(options: SolveOptions, layout: SolveLayout, say: Callable[[str], None]) -> Problem:
    """Return the problem; see `load_problem` and `script_problem`."""
    return (script_problem if options.script else load_problem)(options, layout, say)


def dry_run(options: SolveOptions) -> str:
    """Return what a search would send to which endpoint. The table is read, and nothing is kept or sent.

    Raises:
        ValueError: If the problem cannot be solved as stated.
    """
    options.require_files()
    with tempfile.TemporaryDirectory() as folder:
        problem = load(options, SolveLayout(Path(folder)), lambda _: None)
        instance = first_instance(problem, options.seed)
        settings = PolicySettings()
        script = f"\n{instance.script_source()}" if settings.prompt.show_script else ""
        return describe_sending(options, settings.system, problem_text(instance, script=script))


def start_tree(problem: Problem, environment: Environment, seed: int) -> SearchTree:
    """Return a search with nothing but the initial script, under names that depend on the seed."""
    environment.store_data(problem.task)
    instance = first_instance(problem, seed)
    return SearchTree(instance, environment.problem(instance), environment.start(instance))


def first_instance(problem: Problem, seed: int) -> Instance:
    """Return the problem under names that depend on the seed."""
    return draw_instance(problem.task, random.Random(f"{seed}/names"))


def cost_text(session: Session) -> str:
    """Return the tokens and dollars that requests to endpoints have taken, `` if there are no endpoints."""
    figures = session.team.figures().values()
    if not figures:
        return ""
    tokens = sum(each["input_tokens"] + each["output_tokens"] for each in figures)
    dollars, limit = sum(each["dollars"] for each in figures), session.options.dollars
    return f"{tokens:,} tokens, ${dollars:.2f}" + (f" of ${limit:.2f}" if limit is not None else "")


def search(session: Session, reporter: Reporter) -> str:
    """Grow the tree until the budget is spent, and return the reason for the end.

    An interrupt and a failure of the infrastructure are reasons too: what was found so far is kept.
    """
    options, tree = session.options, session.tree
    rule = make_rule(options.search, options.trajectories, options.steps)
    seconds = 60 * options.minutes
    share = SMALL_RESERVED_SHARE if session.problem.is_small else RESERVED_SHARE
    reserved = max(share * seconds, min(RESERVED_SECONDS, seconds / 2))
    with Journal(session.layout.search) as journal:
        running = Search(tree, session.environment, session.team.agent, rule, journal)
        budget = Budget(options.steps * options.trajectories, seconds - reserved - session.seconds)
        num_concurrent = session.team.num_concurrent(options.slots)
        with show_progress(tree, budget, reporter, lambda: cost_text(session)) as progress:
            try:
                session.event_loop.run(running.run(budget, options.seed, num_concurrent, progress.update))
            except KeyboardInterrupt:
                reporter.note("interrupted; writing the best so far")
                return "interrupted"
            except InfrastructureError as error:
                logger.warning("%s: %s; writing the best so far", type(error).__name__, error)
                return "failed"
    return running.end
