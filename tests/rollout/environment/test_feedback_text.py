"""Feedback texts."""

import pytest

from rollout.environment.feedback_text import (
    diff_text,
    error_summary,
    failure_text,
    head_lines,
    output_text,
    tail_lines,
)
from rollout.options import Observation
from rollout.types import Execution, Exit
from tasks.feedback import validation_score
from tasks.task import Limits

SHORT = Observation(error_characters=300, traceback=False)
WARNING = """\
/env/lib/python3.11/site-packages/sklearn/linear_model/_logistic.py:465: ConvergenceWarning: lbfgs failed
STOP: TOTAL NO. OF ITERATIONS REACHED LIMIT.
  n_iter_i = _check_optimize_result(
validation accuracy: 0.7000
"""


def test_a_diff_has_changed_lines_only_and_leaves_imports_out():
    old = "import os\na\nb\nc\nd\n"
    assert diff_text(old, "import os\nimport re\na\nx\nc\nd\nf\n", 500) == "-b\n+x\n+f"
    assert diff_text(old, "import os\nimport re\na\nb\nc\nd\n", 500) == "+import re"
    assert diff_text(old, old, 500) == ""


def test_a_diff_stays_short_however_much_changes():
    assert diff_text("x\n", f"{'y' * 90}{'z' * 90}\n", 500) == f"-x\n+{'y' * 79}...{'z' * 80}"
    assert len(diff_text("a\n" * 500, "b\n" * 500, 500)) < 550


def test_a_tail_is_of_whole_lines_and_marks_its_cut():
    assert tail_lines(WARNING, 1000) == WARNING.strip()
    assert tail_lines(WARNING, 80) == "...\n  n_iter_i = _check_optimize_result(\nvalidation accuracy: 0.7000"
    assert tail_lines("x" * 50, 10) == "..." + "x" * 10
    assert tail_lines(" \n", 10) == ""


def test_a_head_is_of_whole_lines():
    assert head_lines(["ab", "cd", "ef"], 5) == ["ab", "cd"]
    assert head_lines(["x" * 50, "y"], 10) == ["xxxxx...xxxxx"]
    assert head_lines([], 10) == []


def test_an_error_without_traceback_is_told_by_its_last_lines():
    assert error_summary("Segmentation fault", "a.py", SHORT) == "Segmentation fault"
    assert error_summary("", "a.py", SHORT) == ""


def test_the_last_exception_and_the_scripts_own_line_are_told():
    output = (
        '  File "/w/a.py", line 3, in <module>\n    load()\nKeyError: 1\n'
        "During handling of the above exception, another exception occurred:\n"
        '  File "/w/a.py", line 9, in <module>\n    save()\n  File "/env/b.py", line 7, in save\n'
        "pandas.errors.ParserError: bad\n"
    )
    assert error_summary(output, "a.py", SHORT) == "line 9: save()\npandas.errors.ParserError: bad"
    syntax = '  File "/w/a.py", line 2\n    x = = 1\n        ^\nSyntaxError: invalid syntax\n'
    assert error_summary(syntax, "a.py", SHORT) == "line 2: x = = 1\nSyntaxError: invalid syntax"


def test_a_score_is_read_even_where_warnings_come_after_it() -> None:
    output = "validation mae: 12.5000\n" + "ConvergenceWarning: stopped early\n" * 20
    assert output_text(output, 80).endswith("\nvalidation mae: 12.5000")
    assert "ConvergenceWarning" in output_text(output, 80)
    assert output_text("validation mae: 12.5000\n", 80) == "validation mae: 12.5000"
    assert output_text("validation a: 1.0\n" + "x\n" * 99 + "validation a: 2.0\n", 40).count("validation") == 1
    assert output_text("", 80) == "no output"


def test_of_a_progress_bar_the_last_state_is_shown_and_a_score_after_it_is_read() -> None:
    bar = "".join(f"\r{share}%|{'#' * 50}" for share in range(101))
    assert output_text(f"start\n{bar}\nend\r\n", 200) == f"start\n100%|{'#' * 50}\nend"
    cleared = f"{bar}\r{' ' * 54}\rvalidation mae: 12.5000\n"
    assert output_text(cleared, 200) == "validation mae: 12.5000" and validation_score(cleared) == 12.5
    assert validation_score("50% validation mae: 12.5000\n") is None


CHAINED = """Traceback (most recent call last):
  File "/work/a.py", line 3, in load
    frame["area"]
KeyError: 'area'

{heading} exception, another exception occurred:

Traceback (most recent call last):
  File "/work/a.py", line 9, in <module>
    load()
ValueError: the table cannot be used
"""
DIRECT = CHAINED.replace("{heading} exception, another exception occurred:", "{heading} of the following exception:")


@pytest.mark.parametrize("observation", [SHORT, Observation()])
@pytest.mark.parametrize(
    "output",
    [
        CHAINED.format(heading="During handling of the above"),
        DIRECT.format(heading="The above exception was the direct cause"),
    ],
)
def test_an_exception_is_told_with_the_one_that_caused_it(output: str, observation: Observation) -> None:
    summary = error_summary(output, "a.py", observation)
    assert summary.endswith("load()\nValueError: the table cannot be used\ncaused by KeyError: 'area'")
    plain = error_summary(output[output.rindex("Traceback") :], "a.py", observation)
    assert plain.endswith("ValueError: the table cannot be used") and "caused by" not in plain


@pytest.mark.parametrize("exit", [Exit.TIMEOUT, Exit.OUT_OF_MEMORY, Exit.OUT_OF_DISK])
def test_a_stopped_script_is_told_with_its_last_output(exit: Exit) -> None:
    output = "".join(f"epoch {number}: loss 0.5\n" for number in range(100))
    text = failure_text("a.py", Execution(exit, output, None, 20.0, "test"), Limits(), SHORT)
    assert text.startswith("Stopped: a.py ") and "\nIts last output:\n...\n" in text
    assert text.endswith("epoch 99: loss 0.5") and len(text) < 400
    silent = failure_text("a.py", Execution(exit, "\n", None, 20.0, "test"), Limits(), SHORT)
    assert "last output" not in silent and "\n" not in silent


def test_only_the_exception_before_the_last_one_is_its_cause() -> None:
    chained = CHAINED.format(heading="During handling of the above")
    last = 'Traceback (most recent call last):\n  File "/work/a.py", line 20, in <module>\n    end()\nTypeError: no\n'
    later = chained + last
    assert error_summary(later, "a.py", Observation()).endswith("end()\nTypeError: no")
    own = f"ValueError: logged\n{chained}".replace("KeyError: 'area'", "mymod.Failed: no area")
    assert error_summary(own, "a.py", Observation()).endswith("cannot be used\ncaused by mymod.Failed: no area")
