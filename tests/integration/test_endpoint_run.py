"""The collect stage by its command, with expert and coder behind an endpoint: out of money, killed, and a real vLLM."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rollout.inference.access import KEY_VARIABLE
from rollout.storage.trajectories import read_trajectories
from tasks.action import EDIT, FINAL_ANSWER, Action
from tasks.response import FIELDS, format_response

pytestmark = pytest.mark.slow

KEY = "sk-3f1c-never-to-be-seen"
NUM, MAX_STEPS = 8, 3
TASK = {  # whose scripts run in no time
    "task.yaml": "name: toy\nkind: tabular-regression\nsplit: held_in\nmetric: mae\ndirection: minimize\n"
    "m_best: 0.5\nm_best_source: made up\ndata: made up\n",
    "problem.md": "Guess.\n",
    "prepare.py": "def prepare(raw, public, private):\n"
    "    (public / 'test.csv').write_text('id\\n1\\n')\n"
    "    (private / 'answers.csv').write_text('id,target\\n1,2\\n')\n",
    "train.py": "print('validation mae: 1.0')\nopen('submission.csv', 'w').write('id,target\\n1,3\\n')\n",
}


def answer(body: dict) -> str:
    """Returns what the coder or the expert says: two edits that add a comment, then the final answer."""
    first, *rest = body["messages"]
    if first["role"] == "user":
        source = body["messages"][-1]["content"].split("```python\n")[1].split("\n```")[0]
        return f"```python\n{source}\n# {len(source)}\n```"
    script = re.findall(r"^Best so far: (\S+)", rest[0]["content"], re.MULTILINE)[0]
    depth = (len(rest) - 1) // 2
    if depth == MAX_STEPS - 1:
        action = Action(FINAL_ANSWER, {"final_answer": script})
    else:
        arguments = {"script_name": script, "edit_instruction": f"Do {body['seed']}.", "save_name": f"new{depth}.py"}
        action = Action(EDIT, arguments)
    return format_response(dict.fromkeys(FIELDS[:4], "Fine."), action)


def start(run_dir: Path, address: str, *settings: str, model: str = "some-model") -> subprocess.Popen[str]:
    """Starts the real command with both writers behind the endpoint at `address`."""
    own = run_dir.parent / "own" / "toy"
    own.mkdir(parents=True, exist_ok=True)
    for name, text in TASK.items():
        (own / name).write_text(text)
    command = [sys.executable, "-m", "mlagent_jax.train", "stage=collect", f"run_dir={run_dir}"]
    command += [
        "tasks.held_in=[toy]",
        "tasks.held_out=[]",
        f"tasks.paths=[{own}]",
        "ideas.source=none",
        "sft.wordings=1",
    ]
    command += [f"collect.num_trajectories={NUM}", f"collect.max_steps={MAX_STEPS}"]
    for writer in ("expert", "coder"):
        command += [f"{writer}.kind=endpoint", f"{writer}.base_url={address}", f"{writer}.model={model}"]
        command += [f"{writer}.api_key_env=SOME_KEY", f"{writer}.max_concurrent=4"]
    environment = os.environ | {"SOME_KEY": KEY}
    return subprocess.Popen([*command, *settings], env=environment, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    """Returns what the command said until its end."""
    said = process.communicate()[1]
    assert process.returncode == code, said
    assert KEY not in said
    return said


def recorded(run_dir: Path) -> list[str]:
    """Returns the requests that were answered according to the run directory, as JSON."""
    text = "".join(path.read_text() for path in sorted(run_dir.glob("exchanges/*/part-*.jsonl")))
    whole = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    return [json.dumps(one["request"], sort_keys=True) for one in whole if one["answered"]]


def bodies(server) -> list[str]:
    return [json.dumps(one.body, sort_keys=True) for one in server.answered()]


def test_a_run_out_of_money_or_killed_goes_on_without_paying_twice(chat_server, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"

    def unwell(body: dict, number: int) -> str:
        return "" if number else {0: "500", 1: "half"}.get(body["seed"] % 8, "")

    with chat_server(answer, unwell, seconds=0.05).serving() as server:
        settings = ("expert.max_response_tokens=200", "coder.max_response_tokens=2000")
        said = finish(start(run_dir, server.address, *settings, "expert.budget_tokens=6000"), code=2)
        error = said.splitlines()[-1]
        assert re.match(rf"error: \d of {NUM} of collect are done and kept; expert.budget_tokens=6,000 is spent", error)
        assert "Traceback" not in said
        first = bodies(server)
        assert sorted(first) == sorted(recorded(run_dir)) and len(set(first)) == len(first)

        process = start(run_dir, server.address, *settings)
        while len(server.answered()) < len(first) + 6:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        kept = recorded(run_dir)
        time.sleep(0.5)  # what was under way is over
        before = len(server.answered())
        assert len(first) < len(kept) <= before

        said = finish(start(run_dir, server.address, *settings))
        assert "its inputs changed" not in said
        assert set(kept) & set(bodies(server)[before:]) == set()
        assert before - len(kept) <= 8  # what was under way when it was killed, four for each writer
        trajectories = read_trajectories(run_dir / "trajectories")
        assert [len(one.steps) for one in trajectories] == [MAX_STEPS] * NUM
        assert {step.action for one in trajectories for step in one.steps} == {EDIT, FINAL_ANSWER}

        figures = json.loads((run_dir / "summary.json").read_text())["stages"]["collect"]
        assert (figures["num_lost"], figures["num_retried"]) == (0, 0)
        assert figures["expert"]["answers"] == NUM * MAX_STEPS and figures["expert"]["retries"] > 0
        assert figures["expert"]["cached_tokens"] > 0 and figures["expert"]["replayed"] > 0
        assert 0 < figures["coder"]["answers"] <= NUM * (MAX_STEPS - 1)

        # A whole collection from the journal asks nothing again, so it needs no money.
        (run_dir / "stages" / "collect.json").unlink()
        (run_dir / "trajectories").rename(tmp_path / "before")
        num_asked = len(server.asked)
        finish(start(run_dir, server.address, *settings, "expert.budget_tokens=1"))
        assert len(server.asked) == num_asked
        again = read_trajectories(run_dir / "trajectories")
        assert [[step.response for step in one.steps] for one in again] == [
            [step.response for step in one.steps] for one in trajectories
        ]
    files = [path for path in run_dir.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


def test_a_reasoning_model_whose_answers_have_no_text_ends_no_collection_as_done(chat_server, tmp_path: Path) -> None:
    def reasoning(body: dict) -> dict:
        message = {"role": "assistant", "content": None, "reasoning_content": "Let me think."}
        return {"choices": [{"message": message, "finish_reason": "length"}]}

    run_dir = tmp_path / "run"
    with chat_server(reasoning).serving() as server:
        said = finish(start(run_dir, server.address), code=2)
        error = said.splitlines()[-1]
        assert error.startswith("error: ") and "answers of the expert have no text" in error
        assert "raise expert.max_response_tokens (4096)" in error and "Traceback" not in said
        assert len(server.asked) < 20 and not (run_dir / "stages" / "collect.json").exists()
    with chat_server(answer).serving() as server:  # the same command, after reasoning was switched off
        finish(start(run_dir, server.address))
    figures = json.loads((run_dir / "summary.json").read_text())["stages"]["collect"]
    assert (figures["num_trajectories"], figures["num_invalid"]) == (NUM, 0)
    assert figures["expert"]["empty"] >= 5
    told = [remark["text"] for remark in figures["remarks"]]
    assert any(re.match(r"\d+ of \d+ answers of the expert have no text", text) for text in told)
    assert "answers of the expert have no text" in (run_dir / "report.html").read_text()


@pytest.mark.vllm
def test_a_real_server_is_expert_and_coder_of_a_collection(policy_server, tmp_path: Path) -> None:
    settings = ("expert.max_response_tokens=40", "coder.max_response_tokens=100")
    settings += tuple(f"{model}.api_key_env={KEY_VARIABLE}" for model in ("expert", "coder"))
    address = f"{policy_server.address}/v1"
    # A random model's answers are no actions, which is the agent's doing: nothing is lost, and nothing can be learned.
    said = finish(start(tmp_path / "run", address, *settings, model=str(policy_server.folder)), code=2)
    assert "responses are no valid action, more than collect.max_invalid_share=0.9" in said.splitlines()[-1]
    settings = (*settings, "collect.max_invalid_share=1")
    finish(start(tmp_path / "run", address, *settings, model=str(policy_server.folder)))
    figures = json.loads((tmp_path / "run" / "summary.json").read_text())["stages"]["collect"]
    trajectories = read_trajectories(tmp_path / "run" / "trajectories")
    assert len(trajectories) == NUM and (figures["num_lost"], figures["num_retried"]) == (0, 0)
    assert figures["invalid_share"] == 1.0
    assert sum(len(one.steps) for one in trajectories) == figures["expert"]["answers"] > NUM
    assert figures["expert"]["estimated"] == 0 and figures["expert"]["retries"] == 0
    assert figures["expert"]["cut"] > 0 and figures["expert"]["output_tokens"] > 40
