"""Check that the grader ranks known submissions correctly: the answers best, constant or shuffled answers worse."""

import pandas as pd

from rollout.task_tools.validation.case import UNCHECKED, Case, Failed
from rollout.task_tools.validation.known_submissions import as_csv, constant, gold, shuffled
from tasks.csv_columns import InvalidSubmission
from tasks.grading import grade
from tasks.metric import OPTIMUM

ROUNDING = 1e-9
NUM_SHUFFLES = 5
MARGIN = 0.5  # share of |m_best - m_init| by which the answers must beat shuffled answers
NOT_CHECKED = f"own grader: {UNCHECKED}"


def gold_is_best(case: Case) -> str:
    """Check that the answers, submitted, get the best possible score."""
    score = _gold_score(case)
    if score is None:
        return NOT_CHECKED
    task, best = case.task, OPTIMUM[case.task.direction]
    if case.form is not None and task.grader is None and abs(score - best) > ROUNDING:
        raise Failed(
            f"the answers, submitted, score {score:.6g}, expected {best:g}, the best {task.metric}; check the form of "
            f"the answers in {task.answers}"
        )
    if task.is_better(task.m_best, score) and abs(task.m_best - score) > ROUNDING:
        raise Failed(
            f"the answers, submitted, score {score:.6g}, worse than m_best {task.m_best:.6g} for direction "
            f"{task.direction}; fix the direction, m_best or the grader"
        )
    return f"{score:.4g}"


def constant_is_worse(case: Case) -> str:
    """Check that a constant submission is valid and scores worse than the answers."""
    best = _gold_score(case)
    if best is None:
        return NOT_CHECKED
    try:
        score = _score(case, constant(case))
    except InvalidSubmission as error:
        raise Failed(f"a constant submission is refused ({error}), expected a score; fix the grader") from None
    if not case.task.is_better(best, score):
        raise Failed(
            f"a constant submission scores {score:.6g} and the answers {best:.6g}, expected it to be worse for "
            f"direction {case.task.direction}; fix the direction or the grader"
        )
    return f"{score:.4g}"


def shuffled_is_worse(case: Case) -> str:
    """Check that shuffled answers score clearly worse, so that the direction and m_best are right."""
    task = case.task
    if not task.is_better(task.m_best, task.m_init):
        raise Failed(
            f"m_best {task.m_best:.6g} is no better than m_init {task.m_init:.6g} for direction {task.direction}; fix "
            "the direction or m_best"
        )
    best = _gold_score(case)
    if best is None:
        return NOT_CHECKED
    sign = task.sign
    try:
        leads = [sign * (best - _score(case, shuffled(case, seed))) for seed in range(NUM_SHUFFLES)]
    except InvalidSubmission as error:
        raise Failed(f"shuffled answers are refused ({error}), expected a score; fix the grader") from None
    wanted = MARGIN * abs(task.m_best - task.m_init)
    if min(leads) < wanted:
        raise Failed(
            f"shuffled answers score {best - sign * min(leads):.6g} and the answers {best:.6g}, expected them to be "
            f"worse by {wanted:.4g} for direction {task.direction}; fix the direction or the grader"
        )
    return f"{best - sign * min(leads):.4g}"


def _gold_score(case: Case) -> float | None:
    """Return the score of the answers, None if the task's own grader expects another form."""
    own = case.task.grader is not None
    try:
        return _score(case, gold(case))
    except InvalidSubmission as error:
        if own:
            return None
        raise Failed(f"the answers, submitted, are refused: {error}; fix {case.task.answers} or submission") from None
    except ValueError as error:  # the answers are not a table
        if own:
            return None
        raise Failed(str(error)) from None


def _score(case: Case, submission: pd.DataFrame) -> float:
    """Return the score of a submission. Raises InvalidSubmission, and Failed if the grader raises anything else."""
    try:
        return grade(case.task, as_csv(submission))
    except InvalidSubmission:
        raise
    except Exception as error:
        raise Failed(
            f"the grader raised {error!r:.200} for the columns {', '.join(submission)[:100]}, expected a score or "
            "InvalidSubmission; fix the grader"
        ) from None
