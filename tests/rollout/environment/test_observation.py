"""The limits on what the agent reads: every feedback keeps them, whatever a script prints or a model writes."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import fields, replace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rollout.environment.environment import Environment
from rollout.environment.feedback_text import error_summary
from rollout.options import Observation
from tasks import action as grammar
from tasks.feedback import Outcome

# Heading, status line, and the notes on what was cut.
EXTRA = 400
LONG = "".join(f"line {number}\n" for number in range(3000))
TRACEBACK = 'Traceback (most recent call last):\n  File "/w/oak.py", line 3, in <module>\n    fit()\n'
DEEP = "Traceback (most recent call last):\n" + "".join(
    f'  File "/w/oak.py", line {number}, in step_{number}\n    step({number})\n    ^^^^\n' for number in range(500)
)
OUTPUTS = st.sampled_from(
    [
        *("", LONG, "x" * 9000, "\n" * 9000, "Error: a\n" * 900, f"validation {'a' * 9000}: 1.0\n{LONG}", DEEP),
        *(f"{DEEP}ValueError: {'y' * 9000}\n", f"{TRACEBACK}ValueError: {LONG}", f"{TRACEBACK}{'E' * 9000}"),
    ]
)
LIMITS = st.builds(
    Observation,
    script_lines=st.integers(1, 200),
    traceback=st.booleans(),
    **{each.name: st.integers(100, 6000) for each in fields(Observation) if each.name.endswith("characters")},
)
Case = tuple[str, int]


def environment(toys, observation: Observation, show_script: bool = False) -> Environment:
    return Environment(toys.store, toys.executor, toys.environment.tools.coder, observation, show_script)


def feedback(toys, observation: Observation, response: str) -> str:
    world = environment(toys, observation)
    start, long = world.start(toys.instance), toys.store.put(f"{'#' * 70}\n".encode() * 500)
    snapshot = replace(start, files={**start.files, **{f"long_{number}.py": long for number in range(60)}})
    return asyncio.run(world.step(toys.instance, snapshot, response)).feedback.text


def responses(toys, observation: Observation, output: str) -> Iterator[Case]:
    """Yield responses to which the environment has much to say, and the limit of each feedback."""
    said = {"output": output, "padding": output[:8000]}
    ran = observation.diff_characters + observation.edit_output_characters
    yield toys.edit("cedar.py", "oak.py", correct=6, **said), ran
    failed = observation.diff_characters + observation.error_characters
    yield toys.edit("cedar.py", "oak.py", exit="crashed", **said), failed
    yield toys.edit("cedar.py", "oak.py", exit="out_of_processes", **said), failed
    yield toys.edit("missing.py", "oak.py", exit="timeout", **said), failed
    last = observation.script_lines
    yield (
        toys.respond(grammar.INSPECT, script_name="long_1.py", start_line_number=1, end_line_number=last),
        observation.script_characters,
    )
    yield toys.respond(grammar.LIST_FILES, dir_path="."), observation.listing_characters
    looked = toys.respond(grammar.UNDERSTAND, file_name="cedar.py", things_to_look_for=output)
    yield looked, observation.output_characters


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(observation=LIMITS, output=OUTPUTS)
@example(observation=Observation(), output=LONG)
def test_every_feedback_keeps_its_limit(toys, observation: Observation, output: str) -> None:
    for response, limit in responses(toys, observation, output):
        assert len(feedback(toys, observation, response)) <= limit + EXTRA, response[:200]


def test_the_output_of_a_run_keeps_its_own_limit(toys) -> None:
    observation = Observation(output_characters=1000, edit_output_characters=200)
    world = environment(toys, observation)
    edited = toys.edit("cedar.py", "oak.py", correct=6, output=LONG)
    after = asyncio.run(world.step(toys.instance, world.start(toys.instance), edited)).after
    run = toys.respond(grammar.EXECUTE, script_name="oak.py")
    text = asyncio.run(world.step(toys.instance, after, run)).feedback.text
    assert 900 < len(text) < 1000 + EXTRA and "line 2999\n" in text


def test_no_more_lines_are_shown_than_the_limit_says(toys) -> None:
    inspect = {"script_name": "cedar.py", "start_line_number": 1}
    for last, said in ((2, 'cedar.py, lines 1 to 2 of 4:\ntrain = "birch_train.csv"'), (3, "3 lines are too many; 2")):
        response = toys.respond(grammar.INSPECT, **inspect, end_line_number=last)
        assert said in feedback(toys, Observation(script_lines=2), response)


def test_a_long_listing_of_the_workspace_is_cut_and_counted(toys) -> None:
    world = environment(toys, Observation(listing_characters=100))
    snapshot = world.start(toys.instance)
    files = {**snapshot.files, **{f"copy_{number:02d}.py": snapshot.files["cedar.py"] for number in range(20)}}
    response = toys.respond(grammar.LIST_FILES, dir_path=".")
    text = asyncio.run(world.step(toys.instance, replace(snapshot, files=files), response)).feedback.text
    assert text.splitlines()[0].endswith(", ... (23 files)") and len(text.splitlines()[0]) < 150


def test_an_error_has_the_calls_of_the_script_and_the_whole_message() -> None:
    output = (
        "loaded\nTraceback (most recent call last):\n"
        '  File "/w/oak.py", line 9, in <module>\n    main()\n'
        '  File "/w/oak.py", line 5, in main\n    fit(x,\n    ^^^^^^\n'
        '  File "/env/sklearn/base.py", line 77, in check\n    raise ValueError(\n'
        "ValueError: Input X contains NaN.\nLinearRegression does not accept missing values.\n"
    )
    assert error_summary(output, "oak.py", Observation()) == (
        "line 9: main()\nline 5, in main: fit(x,\n"
        "ValueError: Input X contains NaN.\nLinearRegression does not accept missing values."
    )
    short = Observation(traceback=False, error_characters=300)
    assert error_summary(output, "oak.py", short) == "line 5: fit(x,\nValueError: Input X contains NaN."


@pytest.mark.parametrize(
    ("output", "summary"),
    [
        ("Segmentation fault", "Segmentation fault"),
        ("", ""),
        ('  File "/w/oak.py", line 2\n    x = = 1\n        ^\nSyntaxError: bad\n', "line 2: x = = 1\nSyntaxError: bad"),
        (f"{TRACEBACK}own.Failed: all\n  of it\n", "line 3: fit()\nown.Failed: all\n  of it"),
        (f"{TRACEBACK}KeyError: 1\n\nDuring it:\n\n{TRACEBACK}TypeError: b\n", "line 3: fit()\nTypeError: b"),
        (TRACEBACK.replace("oak", "elm") + "KeyError: 'x'\n", "KeyError: 'x'"),
        (TRACEBACK.replace("\n", "\r\n") + "KeyError: 'x'\r\n", "line 3: fit()\nKeyError: 'x'"),
        (
            'Fatal Python error: Segmentation fault\n\nThread 1:\n  File "/w/oak.py", line 3 in fit\n\nModules: a\n',
            'Fatal Python error: Segmentation fault\n\nThread 1:\n  File "/w/oak.py", line 3 in fit\n\nModules: a',
        ),
        (
            f"{TRACEBACK}ValueError: All 5 fits failed:\n{TRACEBACK.replace('oak', 'elm')}TypeError: b\n",
            "line 3: fit()\nTypeError: b",
        ),
    ],
)
def test_an_error_without_some_part_is_told_by_the_others(output: str, summary: str) -> None:
    assert error_summary(output, "oak.py", Observation()) == summary


@pytest.mark.parametrize("observation", [Observation(), Observation(traceback=False)])
def test_an_exception_that_python_ignores_is_not_the_error(observation: Observation) -> None:
    ignored = f"Exception ignored in: <function Pool.__del__ at 0x7f>\n{TRACEBACK.replace('3', '8')}OSError: late\n"
    for output in (f"{TRACEBACK}KeyError: 1\n{ignored}", f"{ignored}{TRACEBACK}KeyError: 1\n"):
        assert error_summary(output, "oak.py", observation) == "line 3: fit()\nKeyError: 1"


def test_of_many_calls_the_last_ones_are_shown_and_of_a_long_message_both_ends() -> None:
    text = error_summary(f"{DEEP}ValueError: {'y' * 9000}the end\n", "oak.py", Observation(error_characters=900))
    lines = text.splitlines()
    assert (
        lines[0] == "..." and "line 499, in step_499: step(499)" in lines and "line 0, in step_0: step(0)" not in text
    )
    assert "ValueError: yyy" in text and text.endswith("the end") and "characters cut" in text and len(text) < 960


def test_the_first_message_shows_the_script_as_an_action_would(toys) -> None:
    plain, shown = (environment(toys, Observation(), show).problem(toys.instance) for show in (False, True))
    response = toys.respond(grammar.INSPECT, script_name="cedar.py", start_line_number=1, end_line_number=4)
    excerpt = feedback(toys, Observation(), response).rpartition("\n")[0]
    assert shown == f"{plain}\n{excerpt}" and json.dumps("birch_train.csv") in shown
    cut = environment(toys, Observation(script_lines=2), show_script=True).problem(toys.instance)
    assert cut == f'{plain}\ncedar.py, lines 1 to 2 of 4:\ntrain = "birch_train.csv"\ntest = "birch_test.csv"'
    with_ideas = environment(toys, Observation(), show_script=True).problem(toys.instance, ["Use trees."])
    assert with_ideas.index("Use trees.") < with_ideas.index("Best so far: ") < with_ideas.index("lines 1 to 4")


def test_the_quickstarts_feedback_is_short(toys) -> None:
    result = toys.edit("cedar.py", "oak.py", exit="crashed", output=f"{TRACEBACK}ValueError: a\nb\n")
    world = toys.environment
    step = asyncio.run(world.step(toys.instance, world.start(toys.instance), result))
    assert step.feedback.outcome is Outcome.ERROR
    assert "\nError: oak.py crashed.\nline 3: fit()\nValueError: a\nBest so far: cedar.py 0.5000" in step.feedback.text
