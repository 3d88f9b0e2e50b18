"""Any response, one step at a time: starts, invalid responses, failures, and new actions."""

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollout.environment.actions import HANDLERS
from rollout.environment.effect import Effect, Tools
from rollout.environment.paths import head, located
from rollout.errors import CoderError, ExecutorError
from tasks import action as grammar
from tasks.action import ActionSpec
from tasks.feedback import Outcome
from tasks.prompt import messages
from tasks.state import State
from tasks.system_text import system_text
from tasks.task import Instance

from .acting import BEST, step


def test_an_episode_starts_from_the_initial_files_and_scores(toys):
    start = toys.environment.start(toys.instance)
    assert sorted(start.files) == ["birch_test.csv", "birch_train.csv", "cedar.py"]
    assert (start.metric, start.last_submission, start.best_script, start.best_score) == (0.5, None, "cedar.py", 0.5)
    assert '"birch_train.csv"' in toys.store.get(start.files["cedar.py"]).decode()


def test_a_final_answer_changes_nothing(toys):
    result = step(toys, toys.respond(grammar.FINAL_ANSWER, final_answer="cedar.py is best"))
    assert (result.feedback.outcome, result.action) == (Outcome.NON_EDIT, "Final Answer")
    assert result.after == toys.environment.start(toys.instance)


@pytest.mark.parametrize("response", ["hello", "", "Action: List Files\nAction Input: {}"])
def test_an_invalid_response_is_told_why_and_changes_nothing(toys, response: str):
    result = step(toys, response)
    assert result.feedback.outcome is Outcome.INVALID
    assert result.feedback.text.startswith("Invalid response: the field")
    assert result.feedback.text.endswith(BEST)
    assert (result.action, result.arguments, result.seconds) == ("", {}, 0.0)
    assert result.after == toys.environment.start(toys.instance)


def test_text_that_utf8_cannot_hold_is_taken_in(toys):
    response = toys.respond(grammar.EDIT, script_name="cedar.py", edit_instruction="SPOT", save_name="oak.py")
    result = step(toys, response.replace("SPOT", "\\ud800"))
    assert result.arguments["edit_instruction"] == "?"
    listed = toys.respond(grammar.LIST_FILES, dir_path="SPOT").replace("SPOT", "\\ud800")
    assert step(toys, listed).feedback.text.encode()


VALUES = st.text(max_size=20) | st.sampled_from(["cedar.py", "birch_train.csv", "../x", "/", ".", "3", "9" * 30])
RESPONSES = st.text(max_size=200) | st.sampled_from(sorted(grammar.ACTIONS)).flatmap(
    lambda name: st.fixed_dictionaries(dict.fromkeys(grammar.ACTIONS[name].arguments, VALUES)).map(
        lambda arguments: (
            f"Reflection:\nResearch Plan and Status:\nFact Check:\nThought:\nAction: {name}\n"
            f"Action Input: {json.dumps(arguments)}"
        )
    )
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(response=RESPONSES)
def test_no_response_breaks_the_environment_or_touches_the_data(toys, response: str):
    result = step(toys, response)
    start = toys.environment.start(toys.instance)
    assert result.feedback.text.encode().endswith(BEST.encode())
    assert {name: result.after.files[name] for name in toys.instance.read_only}.items() <= start.files.items()


def test_an_infrastructure_failure_is_tried_once_more_and_then_raised(toys):
    toys.executor.faults = [ExecutorError("lost")]
    result = step(toys, toys.edit("cedar.py", "oak.py", correct=6))
    assert result.feedback.outcome is Outcome.EDIT
    toys.executor.faults = [ExecutorError("lost"), CoderError("gone")]
    with pytest.raises(CoderError, match="gone"):
        step(toys, toys.edit("cedar.py", "oak.py", correct=6))
    with pytest.raises(ExecutorError, match="sandbox"):
        step(toys, toys.edit("cedar.py", "oak.py", exit="infrastructure", output="no bwrap"))


def test_the_same_action_in_the_same_state_gives_the_same_result(toys):
    response = toys.edit("cedar.py", "oak.py", correct=9, validation=0.8)
    assert replace(step(toys, response), seconds=0.0) == replace(step(toys, response), seconds=0.0)


def test_every_action_has_a_handler():
    assert set(HANDLERS) == set(grammar.ACTIONS)


def test_a_new_action_takes_one_definition_and_one_handler(toys, monkeypatch: pytest.MonkeyPatch):
    async def count_lines(
        tools: Tools, instance: Instance, files: Mapping[str, str], arguments: Mapping[str, str]
    ) -> Effect:
        del instance
        name, digest = located(tools.store, files, arguments["file_name"])
        number = len((await head(tools.store, name, digest))[0].splitlines())
        return Effect(Outcome.NON_EDIT, f"{name} has {number} lines.", files)

    spec = ActionSpec(
        "Count Lines",
        {"file_name": "file", "at_most": "number"},
        "Counts the lines of a file.",
        {"file_name": "train.csv", "at_most": 9},
        note="of text",
    )
    monkeypatch.setitem(grammar.ACTIONS, spec.name, spec)
    monkeypatch.setitem(HANDLERS, spec.name, count_lines)

    assert '\nCount Lines {"file_name": file, "at_most": number} (of text)\n\nAnswer with' in system_text("brief", 100)
    assert "Count Lines: Counts the lines of a file.\nUsage: Count Lines {" in system_text("full", 100)
    result = step(toys, toys.respond("Count Lines", file_name="cedar.py", at_most=9))
    assert (result.action, result.arguments) == ("Count Lines", {"file_name": "cedar.py", "at_most": "9"})
    assert (result.feedback.outcome, result.feedback.text) == (Outcome.NON_EDIT, f"cedar.py has 4 lines.\n{BEST}")
    state = State(toys.environment.problem(toys.instance)).then("a response", result.feedback.text)
    assert messages(state, "system")[-1]["content"] == result.feedback.text
    missing = step(toys, toys.respond("Count Lines", file_name="oak.py", at_most=9))
    assert missing.feedback.text == f"Error: there is no file oak.py\n{BEST}"
    wrong = step(toys, toys.respond("Count Lines", file_name="cedar.py", at_most=9).replace(": 9", ': "few"'))
    assert wrong.feedback.text == f"Invalid response: at_most must be a whole number.\n{BEST}"
