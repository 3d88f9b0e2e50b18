"""Grading on the event loop: the same scores and faults, and nothing else waits for it."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rollout.environment import grading
from rollout.environment.grading import grade_apart, graded
from rollout.errors import ExecutorError
from tasks.grading import InvalidSubmission, grade
from tasks.task import Task

NUM_ROWS = 1_500_000
TICK_SECONDS = 0.05


def rows(label: Any, count: int = NUM_ROWS) -> bytes:
    return b"id,target\n" + b"".join(b"%d,%s\n" % (index, label) for index in range(count))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the answers of a task with many rows, half of them right if all are said to be `a`."""
    folder = tmp_path_factory.mktemp("large")
    lines = (b"%d,%s\n" % (index, b"ab"[index % 2 : index % 2 + 1]) for index in range(NUM_ROWS))
    (folder / "answers.csv").write_bytes(b"id,target\n" + b"".join(lines))
    return folder


@pytest.mark.parametrize("function", [grade, grade_apart])
def test_scores_and_faults_are_the_same_in_another_process(toys, function: Any) -> None:
    task: Task = toys.instance.task
    answers = (task.private / "answers.csv").read_bytes()
    assert function(task, answers) == 1.0
    with pytest.raises(InvalidSubmission, match="not in the test data"):
        function(task, answers.replace(b"\n0,", b"\n99,"))


def test_own_grader_that_prints_or_ends_its_process_is_not_believed(toys, tmp_path: Path) -> None:
    grader = tmp_path / "grade.py"
    task = replace(toys.instance.task, grader=grader)
    grader.write_text("def grade(submission, private):\n    print('0.9')\n    return 0.25\n")
    assert grade_apart(task, b"") == 0.25
    grader.write_text("import os\ndef grade(submission, private):\n    os._exit(3)\n")
    with pytest.raises(ExecutorError, match="grades submissions to toy failed"):
        grade_apart(task, b"")


def test_grading_of_a_million_rows_delays_nothing_else(toys, large: Path) -> None:
    task = replace(toys.instance.task, private=large)
    submission = rows(b"a")
    assert len(submission) > grading.SMALL_BYTES

    async def grade_and_tick() -> tuple[float, list[float]]:
        delays: list[float] = []
        grading_task = asyncio.create_task(graded(task, submission))
        while not grading_task.done():
            began = time.monotonic()
            await asyncio.sleep(TICK_SECONDS)
            delays.append(time.monotonic() - began - TICK_SECONDS)
        return await grading_task, delays

    score, delays = asyncio.run(grade_and_tick())
    assert score == 0.5
    assert len(delays) > 5 and max(delays) < 0.1, delays
