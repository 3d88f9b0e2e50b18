"""Executing and editing scripts: scores, submissions and errors."""

import pytest

from rollout.types import Exit
from tasks import action as grammar
from tasks.feedback import Outcome

from .acting import BEST, step, text


def test_execute_reports_the_run_and_counts_its_submission_but_moves_no_metric(toys):
    before = step(toys, toys.edit("cedar.py", "oak.py", correct=8, validation=0.8)).after
    result = step(toys, toys.respond(grammar.EXECUTE, script_name="cedar.py"), before)
    assert result.feedback.outcome is Outcome.NON_EDIT
    assert result.feedback.text == "Ran cedar.py:\nvalidation accuracy: 0.5000\nBest so far: oak.py 0.8000"
    assert (result.feedback.metric, result.feedback.validation) == (0.5, 0.5)
    assert (result.after.metric, result.after.last_submission) == (0.8, 0.5)
    assert result.after.files == before.files
    assert result.seconds == 0.5


def test_execute_takes_scripts_that_exist(toys):
    for name in ("none.py", "birch_train.csv", "../x.py", "/bin/x.py"):
        assert step(toys, toys.respond(grammar.EXECUTE, script_name=name)).feedback.outcome is Outcome.ERROR
    assert toys.executor.jobs == []


def test_an_edit_saves_runs_and_moves_metric_submission_and_best(toys):
    result = step(toys, toys.edit("cedar.py", "oak.py", correct=9, validation=0.8))
    assert result.feedback.outcome is Outcome.EDIT
    assert (result.feedback.metric, result.feedback.validation) == (0.9, 0.8)
    assert result.feedback.text == (
        "Saved oak.py:\n-correct = 5\n-validation = 0.5\n+correct = 9\n+validation = 0.8\n"
        "validation accuracy: 0.8000\nBest so far: oak.py 0.8000"
    )
    after = result.after
    assert (after.metric, after.last_submission, after.best_script, after.best_score) == (0.9, 0.9, "oak.py", 0.8)
    assert "correct = 9" in text(toys, result, "oak.py")
    assert "correct = 5" in text(toys, result, "cedar.py")


def test_the_hidden_score_is_in_no_text(toys):
    result = step(toys, toys.edit("cedar.py", "oak.py", correct=9, validation=0.4321))
    assert result.feedback.metric == 0.9
    assert "0.9" not in result.feedback.text


def test_a_worse_edit_moves_the_metric_but_not_the_best(toys):
    result = step(toys, toys.edit("cedar.py", "oak.py", correct=2, validation=0.3))
    after = result.after
    assert (after.metric, after.last_submission, after.best_script, after.best_score) == (0.2, 0.2, "cedar.py", 0.5)


@pytest.mark.parametrize("score", ["float('nan')", "1e999"])
def test_a_score_that_is_no_number_is_never_the_best(toys, score: str):
    output = f"validation accuracy: {'nan' if 'nan' in score else 'inf'}"
    result = step(toys, toys.edit("cedar.py", "oak.py", correct=9, validation=None, output=output))
    assert result.feedback.outcome is Outcome.EDIT
    assert result.after.best_script == "cedar.py"


@pytest.mark.parametrize(
    ("exit", "outcome", "words"),
    [
        (Exit.TIMEOUT, Outcome.CORNER, "longer than 20 s"),
        (Exit.OUT_OF_MEMORY, Outcome.CORNER, "1536 MiB"),
        (Exit.OUT_OF_DISK, Outcome.CORNER, "disk space"),
        (Exit.OUT_OF_PROCESSES, Outcome.CORNER, "more than 64 processes"),
        (Exit.OUT_OF_FILES, Outcome.CORNER, "reached a limit"),
        (Exit.CRASHED, Outcome.ERROR, "crashed"),
        (Exit.KILLED, Outcome.ERROR, "crashed"),
    ],
)
def test_an_edit_that_does_not_run_is_kept_but_counts_nothing(toys, exit: Exit, outcome: Outcome, words: str):
    result = step(toys, toys.edit("cedar.py", "oak.py", exit=exit.value))
    assert result.feedback.outcome is outcome
    assert words in result.feedback.text
    assert "oak.py" in result.after.files
    assert (result.after.metric, result.after.last_submission) == (0.5, None)
    run = step(toys, toys.respond(grammar.EXECUTE, script_name="oak.py"), result.after)
    assert run.feedback.outcome is outcome


def test_a_traceback_is_told_in_two_lines(toys):
    output = (
        "Traceback (most recent call last):\n"
        '  File "/workspace/oak.py", line 12, in <module>\n    model.fit(X, y)\n'
        '  File "/env/lib/sklearn/base.py", line 1000, in wrapper\n    return fit(self)\n'
        "ValueError: Input X contains NaN.\nLogisticRegression does not accept missing values.\n"
    )
    result = step(toys, toys.edit("cedar.py", "oak.py", exit="crashed", output=output))
    assert result.feedback.text.endswith(
        f"Error: oak.py crashed.\nline 12: model.fit(X, y)\nValueError: Input X contains NaN.\n{BEST}"
    )


def test_an_edit_without_a_valid_submission_is_an_error(toys):
    nothing = step(toys, toys.edit("cedar.py", "oak.py", correct=None))
    assert nothing.feedback.outcome is Outcome.ERROR
    assert "left no submission.csv" in nothing.feedback.text
    wrong = step(toys, toys.edit("cedar.py", "oak.py", correct=None, submission="id,target\n0,1\n"))
    assert wrong.feedback.outcome is Outcome.ERROR
    assert "left an invalid submission.csv" in wrong.feedback.text
    for result in (nothing, wrong):
        assert (result.feedback.metric, result.after.metric, result.after.last_submission) == (None, 0.5, None)
        assert result.after.best_script == "cedar.py"


def test_what_stands_in_the_submissions_place_is_not_shown_to_the_script(toys):
    copied = step(toys, toys.respond(grammar.COPY_FILE, source="birch_test.csv", destination="submission.csv")).after
    step(toys, toys.edit("cedar.py", "oak.py", correct=6), copied)
    assert sorted(toys.executor.jobs[-1].files) == ["birch_test.csv", "birch_train.csv", "cedar.py", "oak.py"]


@pytest.mark.parametrize(
    "response",
    [
        {"script_name": "cedar.py", "edit_instruction": '{"correct": 6}', "save_name": "birch_test.csv"},
        {"script_name": "cedar.py", "edit_instruction": '{"correct": 6}', "save_name": "oak.txt"},
        {"script_name": "cedar.py", "edit_instruction": '{"correct": 6}', "save_name": "../oak.py"},
        {"script_name": "birch_train.csv", "edit_instruction": '{"correct": 6}', "save_name": "oak.py"},
    ],
)
def test_an_edit_of_what_is_no_script_is_an_error_and_saves_nothing(toys, response: dict[str, str]):
    result = step(toys, toys.respond(grammar.EDIT, **response))
    assert result.feedback.outcome is Outcome.ERROR
    assert result.after == toys.environment.start(toys.instance)
    assert toys.executor.jobs == []


@pytest.mark.parametrize(
    ("instruction", "feedback"),
    [("make it better", "Error: the edit could not be made: "), ("{}", "Error: the edit changed nothing\n")],
)
def test_an_edit_that_the_coder_does_not_make_is_no_error_of_the_agent(toys, instruction: str, feedback: str):
    arguments = {"script_name": "cedar.py", "edit_instruction": instruction, "save_name": "oak.py"}
    result = step(toys, toys.respond(grammar.EDIT, **arguments))
    assert result.feedback.outcome is Outcome.NOT_EDITED
    assert result.feedback.text.startswith(feedback) and result.feedback.text.endswith(BEST)
    assert result.after == toys.environment.start(toys.instance)
    assert toys.executor.jobs == []


def test_a_missing_script_is_edited_as_an_empty_one(toys):
    result = step(toys, toys.edit("new.py", "oak.py", correct=7, validation=0.6))
    assert result.feedback.outcome is Outcome.EDIT
    assert text(toys, result, "oak.py") == "correct = 7\nvalidation = 0.6\n"
    assert "new.py" not in result.after.files
