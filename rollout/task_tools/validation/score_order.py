"""Whether the grader likes what it should like: the truth best, a guess less, a permutation of the truth least."""

import pandas as pd

from rollout.task_tools.validation.case import Case, Failed
from rollout.task_tools.validation.known_submissions import as_csv, constant, gold, shuffled
from tasks.csv_columns import InvalidSubmission
from tasks.grading import grade
from tasks.metric import OPTIMUM

ROUNDING = 1e-9
NUM_SHUFFLES = 5
CLEARLY = 0.5  # of the way from m_init to m_best, by which the truth is to beat a permutation of it
NOT_CHECKED = "own grader: not checked"


def gold_is_best(case: Case) -> str:
    """Check that the answers themselves, handed in, get the best score that there is."""
    score = _gold_score(case)
    if score is None:
        return NOT_CHECKED
    task, best = case.task, OPTIMUM[case.task.direction]
    if case.form is not None and task.grader is None and abs(score - best) > ROUNDING:
        raise Failed(
            f"the answers handed in score {score:.6g}, expected {best:g}, the best {task.metric}; see whether the "
            f"answers in {task.answers} are of the right form"
        )
    if task.is_better(task.m_best, score) and abs(task.m_best - score) > ROUNDING:
        raise Failed(
            f"the answers handed in score {score:.6g}, worse than m_best {task.m_best:.6g} by direction "
            f"{task.direction}; mend the direction, m_best or the grader"
        )
    return f"{score:.4g}"


def constant_is_worse(case: Case) -> str:
    """Check that a submission that is the same for every row is valid, and worse than the answers."""
    best = _gold_score(case)
    if best is None:
        return NOT_CHECKED
    try:
        score = _score(case, constant(case))
    except InvalidSubmission as error:
        raise Failed(f"a constant submission is refused ({error}), expected a score; mend the grader") from None
    if not case.task.is_better(best, score):
        raise Failed(
            f"a constant submission scores {score:.6g} and the answers {best:.6g}, expected it to be worse by "
            f"direction {case.task.direction}; mend the direction or the grader"
        )
    return f"{score:.4g}"


def shuffled_is_worse(case: Case) -> str:
    """Check that the answers in another order score clearly worse, so the direction is right, and m_best too."""
    task = case.task
    if not task.is_better(task.m_best, task.m_init):
        raise Failed(
            f"m_best {task.m_best:.6g} is no better than m_init {task.m_init:.6g} by direction {task.direction}; mend "
            "the direction, or m_best"
        )
    best = _gold_score(case)
    if best is None:
        return NOT_CHECKED
    sign = 1.0 if task.direction == "maximize" else -1.0
    try:
        leads = [sign * (best - _score(case, shuffled(case, seed))) for seed in range(NUM_SHUFFLES)]
    except InvalidSubmission as error:
        raise Failed(f"the answers in another order are refused ({error}), expected a score; mend the grader") from None
    wanted = CLEARLY * abs(task.m_best - task.m_init)
    if min(leads) < wanted:
        raise Failed(
            f"the answers in another order score {best - sign * min(leads):.6g} and in their own {best:.6g}, expected "
            f"to be worse by {wanted:.4g} in direction {task.direction}; mend the direction or the grader"
        )
    return f"{best - sign * min(leads):.4g}"


def _gold_score(case: Case) -> float | None:
    """Return the score of the answers, None where an own grader wants something that they are not."""
    own = case.task.grader is not None
    try:
        return _score(case, gold(case))
    except InvalidSubmission as error:
        if own:
            return None
        raise Failed(f"the answers handed in are refused: {error}; mend {case.task.answers} or submission") from None
    except ValueError as error:  # there is no table of answers
        if own:
            return None
        raise Failed(str(error)) from None


def _score(case: Case, submission: pd.DataFrame) -> float:
    """Return the score of a submission. Raises InvalidSubmission, and Failed where a grader raises anything else."""
    try:
        return grade(case.task, as_csv(submission))
    except InvalidSubmission:
        raise
    except Exception as error:
        raise Failed(
            f"the grader raised {error!r:.200} at the columns {', '.join(submission)[:100]}, expected a score or "
            "InvalidSubmission; mend it"
        ) from None
