"""Conclude a search: choose a script, fit it on all rows, measure it, and write what the user gets."""

from collections.abc import Callable

from mlagent_jax.solving.delivery import deliver, install
from mlagent_jax.solving.finalists import (
    NUM_CROSS_VALIDATED,
    NUM_FINALISTS,
    Finalist,
    find_finalists,
    rank_by_cross_validation,
    report_by_cross_validation,
)
from mlagent_jax.solving.page import render_page
from mlagent_jax.solving.result import SolveResult, finalist_rows, optimism_of, outcome_counts
from mlagent_jax.solving.session import Session
from rollout.sampling.failures import ran_script
from rollout.storage.atomic_write import write_json, write_text
from tasks.grading import InvalidSubmission
from tasks.holdout import Comparison, compare

MIN_SECONDS = 10.0  # for each step, even if the time is up


def conclude(session: Session, end: str, say: Callable[[str], None]) -> SolveResult:
    """Return the result of a search, and write it to the folder of the result.

    Args:
        session: The search.
        end: The reason for its end, a key of `mlagent_jax.solving.result.ENDS`.
        say: Called with lines of text about the progress.

    Raises:
        ValueError: If no script fits all rows.
        InfrastructureError: If the sandbox failed.
    """
    problem, tree, run = session.problem, session.tree, session.event_loop.run
    finalists = run(
        find_finalists(tree, session.environment, NUM_CROSS_VALIDATED if problem.is_small else NUM_FINALISTS)
    )
    if problem.is_small:
        say(f"cross-validating {len(finalists)} scripts")
        # Half of what is left, because the fit on all rows and the report follow.
        finalists = run(rank_by_cross_validation(finalists, session, max(MIN_SECONDS, session.seconds_left / 2)))
    delivery = run(deliver(session, finalists, max(MIN_SECONDS, session.seconds_left)))
    best, initial = delivery.finalist, next(each for each in finalists if each.node is tree.root)
    report, reason = _report(session, best, initial)
    if end == "time" and not tree.num_actions:
        reason += ("the time was up before an action ended; raise --minutes, or use fewer rows",)
    task, options = problem.task, session.options
    result = SolveResult(
        task=task.name,
        metric=task.metric,
        direction=task.direction,
        search=options.search,
        agent=options.model or options.agent,
        coder=options.coder_model or options.coder,
        end=end,
        num_actions=tree.num_actions,
        num_scripts=sum(node.step is not None and ran_script(node.step) for node in tree.nodes),
        outcomes=outcome_counts(tree),
        search_seconds=tree.nodes[-1].seconds,
        seconds=60 * options.minutes - session.seconds_left,
        best=session.layout.best,
        script=problem.own_script or "train.py",
        files=delivery.files,
        validation=best.validation,
        choice=best.choice,
        initial={"validation": initial.validation, "choice": initial.choice},
        report=report,
        optimism=optimism_of(task.direction, best.validation, report),
        finalists=finalist_rows(finalists, delivery),
        is_cross_validated=problem.is_small,
        endpoints=session.team.figures(),
        notes=(*problem.notes, *delivery.notes, *reason),
    )
    page = render_page(result, tree, session.environment.store, best)
    session.layout.result.unlink(missing_ok=True)  # never beside a script that it is not about
    install(delivery, session.layout.best)
    write_text(session.layout.report, page)
    write_json(session.layout.result, result.to_json())
    return result


def _report(session: Session, best: Finalist, initial: Finalist) -> tuple[Comparison | None, tuple[str, ...]]:
    """Return the scores of the delivered and the initial script on rows that chose nothing, or why there are none."""
    problem, seed = session.problem, session.options.seed
    try:
        if problem.is_small:
            seconds = max(MIN_SECONDS, session.seconds_left)
            return session.event_loop.run(report_by_cross_validation(best, initial, session, seconds)), ()
        if problem.report is None:
            return None, ()
        return compare(problem.task, problem.report, best.submission, initial.submission, seed), ()
    except InvalidSubmission as error:
        return None, (f"there is no score on the rows to report: {error}",)
