"""Grade submissions without stopping the event loop, on which all other episodes and the watchdogs of scripts run."""

import asyncio
import logging
import os
import pickle
import subprocess
import sys

from rollout.errors import ExecutorError
from rollout.runtime.child_environment import child_environment
from rollout.runtime.parent_death import die_with_parent, dies_with_us
from tasks.grading import grade
from tasks.task import Task

# A larger submission is graded in a process of its own, which takes half a second to start: parts of the work on
# millions of rows hold the interpreter's lock for seconds.
SMALL_BYTES = 1 << 20
PROCESS = (sys.executable, "-P", "-c", "from rollout.environment.grading import answer; answer()")
SECONDS = 900.0

log = logging.getLogger(__name__)


async def graded(task: Task, submission: bytes) -> float:
    """Return the hidden score of a submission; raises like `tasks.grading.grade`.

    Raises:
        ExecutorError: If the process that graded it failed.
    """
    return await asyncio.to_thread(grade if len(submission) <= SMALL_BYTES else grade_apart, task, submission)


def grade_apart(task: Task, submission: bytes) -> float:
    """Grade a submission in another process; raises like `graded`."""
    environment = {**child_environment(), **dies_with_us(), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            PROCESS, input=pickle.dumps((task, submission)), capture_output=True, env=environment, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        raise ExecutorError(f"a submission to {task.name} was not graded within {SECONDS:.0f} s") from None
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    if done.returncode != 0:
        last = lines[-1] if lines else f"status {done.returncode}"
        raise ExecutorError(f"the process that grades submissions to {task.name} failed: {last}")
    for line in lines:
        log.warning("%s: %s", task.name, line)
    score, error = pickle.loads(done.stdout)
    if error is not None:
        raise error
    return score


def answer() -> None:
    """Grade the submission on standard input, and write its score and its error, one of which is None."""
    die_with_parent()
    task, submission = pickle.load(sys.stdin.buffer)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a task's own grader prints is no answer
    try:
        found = grade(task, submission), None
    except (ValueError, OSError) as error:  # InvalidSubmission is one
        found = None, error
    with out:
        pickle.dump(found, out)
