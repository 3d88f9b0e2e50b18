"""Choose among the best scripts of a search by rows that the agent never saw, and measure the choice on others."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mlagent_jax.solving.cross_validation import cross_validate
from mlagent_jax.solving.session import Session
from rollout.environment.environment import Environment
from rollout.errors import ExecutorError
from rollout.runtime.event_loop import gather
from rollout.search.tree import Node, SearchTree
from rollout.types import Exit, Job
from tasks.grading import InvalidSubmission, grade, scored
from tasks.holdout import Comparison, compare_predictions
from tasks.task import SUBMISSION

NUM_FINALISTS = 8  # scripts that the rows to choose by decide among; more would fit these rows
NUM_CROSS_VALIDATED = 3  # scripts that are fitted fifteen times each


@dataclass(frozen=True)
class Finalist:
    """A script that may be delivered.

    Attributes:
        node: The state in which it ran, the root for the initial script.
        name: The script's name in the workspace.
        source: Its source, with the names train.csv and test.csv.
        validation: The score that it printed.
        choice: The score by which it is chosen: on hidden rows, or by cross-validation.
        submission: Its submission.
    """

    node: Node
    name: str
    source: str
    validation: float
    choice: float
    submission: bytes


async def find_finalists(tree: SearchTree, environment: Environment, most: int = NUM_FINALISTS) -> list[Finalist]:
    """Return the initial script and the others with the best printed scores, ordered by the rows to choose by.

    Their submissions come from the result cache; a script whose result differs between runs runs again.

    Raises:
        ExecutorError: If the initial script fails, which it did not when the task was prepared.
    """
    sign = tree.task.sign
    scored = [(score, node) for node in tree.nodes if node.script and (score := printed_score(node)) is not None]
    ranked: dict[str, Node] = {}
    for _, node in sorted(scored, key=lambda each: -sign * each[0]):
        ranked.setdefault(node.snapshot.files[node.script], node)
    initial = tree.instance.names.script
    ranked.pop(tree.root.snapshot.files[initial], None)
    chosen = [tree.root, *list(ranked.values())[:most]]
    found = await gather(_finalist(tree, environment, node) for node in chosen)
    if found[0] is None:
        raise ExecutorError("the initial script does not run in the sandbox, though it ran outside; see work/log.txt")
    finalists = [each for each in found if each is not None]
    return sorted(finalists, key=lambda each: (-sign * each.choice, -sign * each.validation, each.node.number))


def printed_score(node: Node) -> float | None:
    """Return the score that the script of a state printed, None if there is none or it is not finite."""
    score = node.step.feedback.validation if node.step is not None else None
    return score if score is not None and math.isfinite(score) else None


async def _finalist(tree: SearchTree, environment: Environment, node: Node) -> Finalist | None:
    """Return the finalist of a state, None if its script leaves no valid submission this time."""
    task, instance = tree.task, tree.instance
    name = node.script or instance.names.script
    files = {each: blob for each, blob in node.snapshot.files.items() if each != SUBMISSION}
    job = Job(name, files, task.limits, task.deterministic, instance.read_only, task.name)
    execution = await environment.tools.executor.run(job)
    if execution.exit is not Exit.OK or execution.submission is None:
        return None
    try:
        score = grade(task, execution.submission)
    except InvalidSubmission:
        return None
    validation = printed_score(node) if node.step is not None else task.validation_init
    assert validation is not None, "only scripts that printed a score are finalists"
    names = instance.names
    source = environment.store.get(files[name]).decode()
    source = source.replace(names.train_file, "train.csv").replace(names.test_file, "test.csv")
    return Finalist(node, name, source, validation, score, execution.submission)


async def rank_by_cross_validation(finalists: Sequence[Finalist], session: Session, seconds: float) -> list[Finalist]:
    """Return the finalists with their cross-validated scores, best first; what cannot be cross-validated is left out.

    Args:
        finalists: The finalists, the initial script among them.
        session: The search.
        seconds: The time, of which each finalist may use an equal share; one repetition runs in any case.

    Raises:
        ExecutorError: If the initial script cannot be cross-validated.
    """
    task = session.problem.task
    sign = task.sign
    found = []
    for finalist in finalists:
        repeats = await cross_validate(finalist.source, session, session.options.seed, seconds / len(finalists))
        try:
            scores = [scored(task.metric, *each) for each in repeats]
        except InvalidSubmission:
            continue
        if scores:
            found.append(replace(finalist, choice=sum(scores) / len(scores)))
    if all(each.node.parent is not None for each in found):
        raise ExecutorError("the initial script fails on parts of the rows; see work/log.txt")
    return sorted(found, key=lambda each: (-sign * each.choice, each.node.number))


async def report_by_cross_validation(best: Finalist, initial: Finalist, session: Session, seconds: float) -> Comparison:
    """Return the cross-validated scores of two scripts on other folds than those of the choice.

    Args:
        best: The delivered script.
        initial: The initial script.
        session: The search.
        seconds: The time; one repetition of each script runs in any case.

    Raises:
        InvalidSubmission: If a script fails on a fold, or its predictions have no score.
    """
    problem, seed = session.problem, session.options.seed + 1
    assert problem.rows is not None, "a user's table"
    ours, theirs = [await cross_validate(each.source, session, seed, seconds / 2) for each in (best, initial)]
    if not ours or not theirs:
        raise InvalidSubmission("the script fails on a part of the rows")
    groups = problem.rows[problem.task.group].tolist() if problem.task.group else None
    return compare_predictions(problem.task.metric, ours, theirs, seed, groups)
