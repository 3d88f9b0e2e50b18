"""The environment as a library: episodes of any agent, from any state, one or many at a time, in real sandboxes."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import mlagent_jax
from mlagent_jax.env.env import Env
from rollout.executor.interpreter import TASK_PYTHON
from tasks import action as grammar
from tasks.action import Action
from tasks.response import FIELDS, format_response
from tasks.reward import Rules

PYTHON = Path(os.environ.get("TASK_PYTHON", TASK_PYTHON))


def respond(name: str, **arguments: str) -> str:
    return format_response(dict.fromkeys(FIELDS[:4], "Fine."), Action(name, arguments))


def edit(script: str, instruction: str, save: str) -> str:
    return respond(grammar.EDIT, script_name=script, edit_instruction=instruction, save_name=save)


ANSWER = respond(grammar.FINAL_ANSWER, final_answer="Done.")


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Env]:
    folder = tmp_path_factory.mktemp("env")
    with mlagent_jax.make("house_price", max_steps=4, folder=folder, python=PYTHON) as env:
        yield env


def test_an_episode_goes_from_the_initial_script_to_a_better_one(env: Env) -> None:
    state = env.reset(seed=0)
    assert [message["role"] for message in state.messages] == ["system", "user"]
    assert not state.done and env.gain(state) == 0.0
    step = env.step(edit(state.instance.names.script, "Use gradient boosting.", "boosted.py"))
    assert step.info["outcome"] == "edit" and step.info["action"] == grammar.EDIT
    assert step.reward == pytest.approx(env.gain(step.state)) and step.reward > 0
    assert step.feedback == step.state.messages[-1]["content"] and "boosted.py" in step.feedback
    assert f"{step.info['metric']:.4f}" not in step.feedback  # the hidden score
    answered = env.step(ANSWER)
    assert answered.done and answered.state.end == "final_answer" and answered.reward == 0.0
    with pytest.raises(ValueError, match="the episode is over .final_answer.; call reset, or pass an earlier state"):
        env.step(ANSWER)


def test_any_state_can_be_acted_from_again(env: Env) -> None:
    start = env.reset(seed=1)
    forest = edit(start.instance.names.script, "Use a random forest.", "forest.py")
    first = env.step(forest)
    again = env.step(forest, start)
    assert again.state == first.state and again.reward == first.reward
    assert env.state == first.state
    other = env.step(edit(start.instance.names.script, "Use k nearest neighbors.", "near.py"), start)
    assert "near.py" in other.state.snapshot.files and "forest.py" not in other.state.snapshot.files


def test_mistakes_are_feedback_and_the_step_limit_ends_the_episode(env: Env) -> None:
    env.reset(seed=2)
    rewards = [env.step(text).reward for text in ("nonsense", respond(grammar.EXECUTE, script_name="none.py"))]
    assert rewards == [-1.0, -1.0]
    env.step("nonsense")
    last = env.step("nonsense")
    assert last.done and last.state.end == "step_limit"


def test_many_states_at_a_time_give_what_each_gives_alone(env: Env) -> None:
    states = [env.reset(seed) for seed in (3, 4, 5)]
    texts = [
        edit(states[0].instance.names.script, "Use gradient boosting.", "a.py"),
        "nonsense",
        respond(grammar.LIST_FILES, dir_path="."),
    ]
    together = env.step_many(list(zip(texts, states, strict=True)))
    assert [step.info["outcome"] for step in together] == ["edit", "invalid", "non_edit"]

    async def one_by_one() -> list[float]:
        return [(await env.step_async(text, state)).reward for text, state in zip(texts, states, strict=True)]

    assert asyncio.run(one_by_one()) == [step.reward for step in together]
    assert states[0].instance.names != states[1].instance.names


def test_a_repeated_edit_earns_nothing_if_the_rules_say_so(tmp_path: Path, env: Env) -> None:
    with mlagent_jax.make(env.task, rules=Rules(repeats=False), folder=tmp_path, python=PYTHON) as strict:
        script = strict.reset(seed=0).instance.names.script
        first = strict.step(edit(script, "Use gradient boosting.", "a.py"))
        worse = strict.step(edit(script, "Predict a constant.", "b.py"))
        again = strict.step(edit(script, "Use  gradient boosting.", "c.py"))
    assert first.reward > 0 and not first.info["repeated"]
    assert worse.info["outcome"] == "edit" and again.info["repeated"] and again.reward == 0.0


def test_what_cannot_be_opened_or_stepped_says_why(tmp_path: Path, env: Env) -> None:
    with pytest.raises(ValueError, match="house_prize.*house_price"):
        mlagent_jax.make("house_prize", folder=tmp_path)
    with mlagent_jax.make(env.task, folder=tmp_path, python=PYTHON) as fresh:
        with pytest.raises(ValueError, match="no episode was begun; call reset first"):
            fresh.step(ANSWER)


def test_a_temporary_folder_is_gone_after_the_environment(env: Env, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with mlagent_jax.make(env.task, python=PYTHON) as other:
        other.reset()
        assert list(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == []
