"""Whether the initial script does in a sandbox what `prepare` measured outside of one."""

from rollout.errors import InfrastructureError
from rollout.task_tools.validation.case import Case, Failed

NUM_DEVIATIONS = 3.0  # of the noise, that a score may be away from m_init
ROUNDING = 1e-9  # of a score
MOST_OF_LIMIT = 0.5  # of limits.seconds: an edit that takes twice as long is still within
FRESH_SLACK = 3.0  # starting an interpreter is not what limits.seconds is for


def initial_script(case: Case) -> str:
    """Check that the script runs in both kinds of sandbox and scores m_init, in at most half of its time."""
    task = case.task
    scores: dict[str, float] = {}
    share = 0.0
    for way in ("forked", "fresh"):
        run = case if way == "forked" else case.with_seconds(FRESH_SLACK)
        try:
            done = case.workshop.run_initial(run.task, way)
        except (InfrastructureError, ValueError) as error:  # the latter: its limits are more than this machine has
            raise Failed(f"the initial script got no {way} sandbox: {error}") from None
        if done.feedback.metric is None:
            text = " ".join(done.feedback.text.split())[-300:]
            raise Failed(f"the initial script left no valid submission in a {way} sandbox: {text}")
        if done.feedback.validation is None:
            raise Failed(f"the initial script printed no line 'validation {task.metric}: SCORE' in a {way} sandbox")
        scores[way] = done.feedback.metric
        if way == "forked":
            share = done.seconds / task.limits.seconds
    allowed = max(NUM_DEVIATIONS * task.noise, ROUNDING * abs(task.m_init))
    for way, score in scores.items():
        if abs(score - task.m_init) > allowed:
            raise Failed(
                f"the initial script scored {score:.6g} in a {way} sandbox, expected m_init {task.m_init:.6g} within "
                f"{allowed:.2g}; seed whatever it draws"
            )
    if task.deterministic and abs(scores["forked"] - scores["fresh"]) > ROUNDING * abs(task.m_init):
        raise Failed(
            f"two runs of the initial script scored {scores['warm']:.6g} and {scores['cold']:.6g}, expected the same; "
            "seed whatever it draws, or state deterministic: false"
        )
    if share > MOST_OF_LIMIT:
        raise Failed(
            f"the initial script took {share:.0%} of limits.seconds={task.limits.seconds:g}, expected at most "
            f"{MOST_OF_LIMIT:.0%}; make it faster, or raise the limit"
        )
    return f"{scores['warm']:.4g}, {share:.0%} of limit"
