"""Every failure of an action has one cause, read from real actions in a real environment."""

import asyncio

import pytest

from rollout.sampling.failures import Cause, failure_cause, failure_shares, repeated_share
from rollout.types import Step, Trajectory
from tasks import action as grammar


def acted(toys, *responses: str) -> list[Step]:
    """Return the steps of responses, one after the other."""
    environment, snapshot, steps = toys.environment, toys.environment.start(toys.instance), []
    for response in responses:
        result = asyncio.run(environment.step(toys.instance, snapshot, response))
        step = Step(response, result.action, result.arguments, result.feedback, snapshot, result.after, 0.0)
        steps.append(step)
        snapshot = result.after
    return steps


def trajectory(toys, steps: list[Step]) -> Trajectory:
    names = toys.instance.names
    return Trajectory("one", "toy", 0, names, "problem", (), tuple(steps), "step_limit")


def causes(steps: list[Step]) -> list[Cause | None]:
    earlier: set[str] = set()
    found = []
    for step in steps:
        found.append(failure_cause(step, earlier))
        if grammar.is_edit(step.action):
            earlier.add(grammar.plain_instruction(step.action, step.arguments))
    return found


def test_each_failure_has_its_cause(toys):
    script, train = toys.instance.names.script, toys.instance.names.train_file
    responses = {
        toys.edit(script, "sky.py", correct=9): None,
        toys.respond(grammar.LIST_FILES, dir_path="."): None,
        "no action": Cause.INVALID,
        toys.respond(grammar.EXECUTE, script_name="elm.py"): Cause.UNKNOWN_FILE,
        toys.respond(
            grammar.EDIT, script_name="elm.py", edit_instruction="Dance.", save_name="sea.py"
        ): Cause.UNKNOWN_FILE,
        toys.respond(grammar.EDIT, script_name=script, edit_instruction="Sing.", save_name="sea.py"): Cause.NOT_EDITED,
        toys.edit(script, "sea.py", exit="crashed"): Cause.SCRIPT,
        toys.respond(grammar.EXECUTE, script_name="sea.py"): Cause.SCRIPT,
        toys.edit(script, "oak.py", correct=None, submission="nonsense"): Cause.SCRIPT,
        toys.edit(script, "ash.py", exit="timeout"): Cause.LIMIT,
        toys.edit(script, train, correct=7): Cause.REFUSED,
        toys.respond(grammar.COPY_FILE, source=script, destination=train): Cause.REFUSED,
    }
    steps = acted(toys, *responses)
    assert causes(steps) == list(responses.values())
    shares = failure_shares([trajectory(toys, steps)])
    assert shares["script"] == pytest.approx(3 / 12) and shares["unknown_file"] == pytest.approx(2 / 12)
    assert shares["all"] == pytest.approx(10 / 12) == pytest.approx(sum(shares[cause.value] for cause in Cause))


def test_a_repeat_that_fails_is_a_repeat_and_one_that_works_is_no_failure(toys):
    script = toys.instance.names.script
    crash, works = toys.edit(script, "sky.py", exit="crashed"), toys.edit(script, "sea.py", correct=9)
    steps = acted(toys, crash, crash, works, works)
    assert causes(steps) == [Cause.SCRIPT, Cause.REPEATED, None, None]
    assert repeated_share([trajectory(toys, steps)]) == 0.5
    assert causes(steps[1:]) == [Cause.SCRIPT, None, None]  # in another trajectory it is the first one


def test_without_actions_nothing_fails(toys):
    assert failure_shares([])["all"] == 0.0 and repeated_share([]) == 0.0
