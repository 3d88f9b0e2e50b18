"""Whole episodes: who sees what, and how they end."""

import asyncio

from rollout.sampling.episode import PolicyActor, draw_seed, run_episode
from rollout.types import Trajectory
from tasks import action as grammar
from tasks.feedback import Outcome
from tasks.state import State


def run(toys, lines, max_steps: int = 6, max_seconds: float = 60.0, ideas: tuple[str, ...] = ()) -> Trajectory:
    actor = toys.actor(lines)
    toys.calls = actor.calls
    return asyncio.run(
        run_episode(
            toys.environment,
            actor,
            toys.instance,
            trajectory_id="t",
            seed=7,
            max_steps=max_steps,
            max_seconds=max_seconds,
            ideas=ideas,
        )
    )


def test_an_episode_chains_its_steps_and_ends_with_the_final_answer(toys):
    lines = [
        toys.edit("SCRIPT", "oak.py", correct=9, validation=0.8),
        toys.edit("oak.py", "elm.py", exit="timeout"),
        toys.edit("oak.py", "fir.py", correct=6, validation=0.7),
        toys.respond(grammar.FINAL_ANSWER, final_answer="oak.py"),
        "never said",
    ]
    trajectory = run(toys, lines)
    assert trajectory.end == "final_answer"
    assert [step.feedback.outcome for step in trajectory.steps] == [
        Outcome.EDIT,
        Outcome.CORNER,
        Outcome.EDIT,
        Outcome.NON_EDIT,
    ]
    for earlier, later in zip(trajectory.steps, trajectory.steps[1:], strict=False):
        assert earlier.after == later.before
    assert trajectory.steps[0].before == toys.environment.start(toys.instance)
    assert trajectory.score(0.5) == 0.6
    assert trajectory.steps[-1].after.best_script == "oak.py"
    assert (trajectory.task, trajectory.seed, trajectory.names) == ("toy", 7, toys.instance.names)


def test_the_actor_sees_the_history_and_the_ideas_and_the_record_goes_without_ideas(toys):
    look = toys.respond(grammar.LIST_FILES, dir_path=".")
    trajectory = run(toys, [look] * 2, max_steps=2, ideas=("use trees",))
    (_, first, first_seed), (_, second, second_seed) = toys.calls
    assert "(1) use trees" in first.problem
    assert second == first.then(look, trajectory.steps[0].feedback.text)
    assert (first_seed, second_seed) == (draw_seed(7, "step", 0), draw_seed(7, "step", 1))
    assert "use trees" not in trajectory.problem
    assert trajectory.ideas == ("use trees",)
    assert trajectory.steps[0].wording == f'["{first_seed}"]'
    assert trajectory.end == "step_limit"


def test_time_and_context_limits_end_an_episode(toys):
    look = toys.respond(grammar.LIST_FILES, dir_path=".")
    late = run(toys, [look], max_seconds=-1.0)
    assert (late.end, late.steps, late.score(0.5)) == ("time_limit", (), 0.5)
    full = run(toys, [look, None])
    assert (full.end, len(full.steps)) == ("context_limit", 1)


def test_an_invalid_response_is_a_step_like_others(toys):
    trajectory = run(toys, ["gibberish \ud800", toys.respond(grammar.FINAL_ANSWER, final_answer="x")])
    assert [step.feedback.outcome for step in trajectory.steps] == [Outcome.INVALID, Outcome.NON_EDIT]
    assert trajectory.steps[0].response == "gibberish ?"


def test_a_policy_acts_by_tokens_and_declines_a_state_that_leaves_no_room(toys):
    policy = toys.policy(["one", "two"])
    state = State("problem")
    actor = PolicyActor(policy, toys.tokenizer, context_limit=27, max_response_tokens=20)
    response = asyncio.run(actor.act(toys.instance, state, seed=1))
    assert response is not None
    assert response.text == "two"
    assert response.completion is not None
    assert response.completion.policy_version == 3
    tight = PolicyActor(policy, toys.tokenizer, context_limit=26, max_response_tokens=20)
    assert asyncio.run(tight.act(toys.instance, state, seed=1)) is None
    assert policy.calls == [(1, 1)]
