"""Agents and tasks on the command line are read right, or refused in one line with the remedy."""

from pathlib import Path

import pytest

from mlagent_jax.evaluating.command import main
from mlagent_jax.evaluating.options import EvaluateOptions, read_agents, read_tasks
from tasks.registry import names


def policy(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def test_agents_are_named_or_named_by_what_they_are(tmp_path: Path) -> None:
    export, model = policy(tmp_path / "good_run" / "export"), policy(tmp_path / "good_run" / "sft" / "model")
    texts = ["initial", "base=scripted", str(tmp_path / "good_run"), f"sft={model.parent}", "gpt=https://a.b/v1?x=1"]
    found = read_agents(texts, {"gpt": "m"}, {"gpt": "KEY"}, {"gpt": "2.5,10"})
    assert [(agent.name, agent.where) for agent in found] == [
        ("initial", "initial"),
        ("base", "scripted"),
        ("good_run", str(export)),
        ("sft", str(model)),
        ("gpt", "https://a.b/v1?x=1"),
    ]
    assert (found[-1].model, found[-1].key_env, found[-1].price) == ("m", "KEY", (2.5, 10.0))
    assert [agent.is_policy for agent in found] == [False, False, True, True, False]


def test_a_policy_in_a_run_is_named_after_the_run(tmp_path: Path) -> None:
    export = policy(tmp_path / "good_run" / "export")
    (agent,) = read_agents([str(export)], {}, {}, {})
    assert agent.name == "good_run"


def test_suites_name_their_tasks_once() -> None:
    assert set(read_tasks(["suite", "quickstart", "house_price"], ())) == set(names())
    assert "spaceship-titanic" in read_tasks(["paper"], ())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--agents", "scriptd", "--tasks", "house_price"],
            "unknown agent 'scriptd' (nearest: scripted); expected initial,",
        ),
        (["--agents", "x=no/such/folder", "--tasks", "house_price"], "no/such/folder is no model: expected"),
        (["--agents", "https://a.b/v1", "--tasks", "house_price"], "https://a.b/v1 needs a name, as in gpt=https"),
        (["--agents", "g=https://a.b/v1", "--tasks", "house_price"], "needs --model g=MODEL"),
        (["--agents", "initial", "--tasks", "house_prise"], "unknown task 'house_prise'"),
        (["--agents", "initial", "initial", "--tasks", "house_price"], "two agents are named initial"),
        (["--agents", "../x=initial", "--tasks", "house_price"], "'../x' is no name of an agent"),
        (["--agents", "initial", "--tasks", "house_price", "-k", "0"], "-k is 0; expected 1 or more"),
        (["--agents", "initial", "--tasks", "house_price", "--minutes", "nan"], "--minutes is nan; expected"),
        (["--agents", "initial", "--tasks", "house_price", "--model", "gpt"], "--model gpt; expected --model AGENT="),
        (["--agents", "initial", "--tasks", "house_price", "--model", "gpt=x"], "no agent is named gpt"),
        (
            ["--agents", "initial", "--tasks", "house_price", "--model", "initial=x"],
            "are for endpoints; leave them out",
        ),
        (["--agents", "coder=initial", "--tasks", "house_price"], "no agent can be named coder"),
        (
            ["--agents", "initial", "--tasks", "house_price", "--coder", "random"],
            "--coder is random; expected scripted, a directory of a model, or an address",
        ),
        (["--agents", "initial", "--tasks", "house_price", "--coder", "tests"], "tests is no model: expected"),
        (["--agents", "initial", "--tasks", "house_price", "--dollars", "nan"], "--dollars is nan; expected"),
        (["--agents", "initial", "--tasks", "house_price", "--raw", "/nope"], "there is no folder /nope; check --raw"),
        (
            ["--agents", "g=http://a/v1", "--model", "g=m", "--key-env", "g=NO_SUCH", "--tasks", "house_price"],
            "--key-env g=NO_SUCH: that environment variable is not set; export it",
        ),
        (
            ["--agents", "g=http://a/v1", "--model", "g=m", "--price", "g=1", "--tasks", "house_price"],
            "--price g=1; expected dollars per million tokens, as g=2.5,10",
        ),
        (
            ["--agents", "g=http://a/v1", "--model", "g=m", "--dollars", "1", "--tasks", "house_price"],
            "--dollars needs all prices: add --price g=INPUT,OUTPUT",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1, error
    assert not (tmp_path / "out").exists()


def test_results_depend_on_the_agent_and_the_limits_but_not_on_the_number_of_seeds(tmp_path: Path) -> None:
    (agent,) = read_agents(["scripted"], {}, {}, {})
    options = [
        EvaluateOptions(tmp_path, (agent,), ("a",), seeds=seeds, steps=steps)
        for seeds, steps in ((1, 5), (3, 5), (1, 6))
    ]
    first, more_seeds, more_steps = (each.identity(agent) for each in options)
    assert first == more_seeds != more_steps
