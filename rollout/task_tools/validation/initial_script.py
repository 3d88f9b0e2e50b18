"""Check that the initial script gets the same score in a sandbox as during preparation, which uses none."""

from rollout.errors import InfrastructureError
from rollout.task_tools.validation.case import Case, Failed

NUM_DEVIATIONS = 3.0  # maximum difference of a score from m_init, in units of the noise
ROUNDING = 1e-9  # relative tolerance of equal scores
MAX_SHARE = 0.5  # share of limits.seconds, so that an edit may take twice as long
FRESH_SLACK = 3.0  # factor on limits.seconds, which does not account for starting an interpreter


def initial_script(case: Case) -> str:
    """Check that the script scores m_init in both kinds of sandbox, within half of its time limit."""
    task = case.task
    scores: dict[str, float] = {}
    share = 0.0
    for kind in ("forked", "fresh"):
        run = case if kind == "forked" else case.with_seconds(FRESH_SLACK)
        try:
            result = case.sandboxes.run_initial(run.task, kind)
        except (InfrastructureError, ValueError) as error:  # ValueError: its limits exceed this machine's resources
            raise Failed(f"the initial script got no {kind} sandbox: {error}") from None
        if result.feedback.metric is None:
            text = " ".join(result.feedback.text.split())[-300:]
            raise Failed(f"the initial script left no valid submission in a {kind} sandbox: {text}")
        if result.feedback.validation is None:
            raise Failed(f"the initial script printed no line 'validation {task.metric}: SCORE' in a {kind} sandbox")
        scores[kind] = result.feedback.metric
        if kind == "forked":
            share = result.seconds / task.limits.seconds
    allowed = max(NUM_DEVIATIONS * task.noise, ROUNDING * abs(task.m_init))
    for kind, score in scores.items():
        if abs(score - task.m_init) > allowed:
            raise Failed(
                f"the initial script scored {score:.6g} in a {kind} sandbox, expected m_init {task.m_init:.6g} within "
                f"{allowed:.2g}; seed all its random draws"
            )
    if task.deterministic and abs(scores["forked"] - scores["fresh"]) > ROUNDING * abs(task.m_init):
        raise Failed(
            f"two runs of the initial script scored {scores['forked']:.6g} and {scores['fresh']:.6g}, expected equal "
            "scores; seed all its random draws, or state deterministic: false"
        )
    if share > MAX_SHARE:
        raise Failed(
            f"the initial script took {share:.0%} of limits.seconds={task.limits.seconds:g}, expected at most "
            f"{MAX_SHARE:.0%}; make it faster, or raise the limit"
        )
    return f"{scores['forked']:.4g}, {share:.0%} of limit"
