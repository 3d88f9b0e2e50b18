"""A task is an environment of the real package verifiers: rollouts get its feedback, its rewards and its gain."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.action import EXECUTE, FINAL_ANSWER, Action
from tasks.response import FACT_CHECK, REFLECTION, STATUS, THOUGHT, format_response

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
PACKAGES = Path(sys.prefix) / "opt" / "verifiers"
THOUGHTS = dict.fromkeys((REFLECTION, STATUS, FACT_CHECK, THOUGHT), "Run it.")


def reply(text: str) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}


def run_the_initial_script_and_answer(body: dict[str, Any]) -> dict[str, Any]:
    """Plays a model that runs the initial script, and then gives it as the final answer."""
    found = re.search(r"start from (\S+\.py)", body["messages"][1]["content"])
    assert found is not None
    if len(body["messages"]) == 2:
        return reply(format_response(THOUGHTS, Action(EXECUTE, {"script_name": found[1]})))
    return reply(format_response(THOUGHTS, Action(FINAL_ANSWER, {"final_answer": found[1]})))


def roll_out(address: str, folder: Path) -> list[dict[str, Any]]:
    if not PACKAGES.exists():
        pytest.skip("verifiers is not here: make verifiers")
    environment = {**os.environ, "PYTHONPATH": str(PACKAGES), "MLAGENT_TEST_KEY": "key"}
    command = [sys.executable, str(HERE / "verifiers_rollout.py"), address, "m", str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_rollout_has_the_feedback_the_step_rewards_and_the_gain(chat_server: Any, tmp_path: Path) -> None:
    with chat_server(run_the_initial_script_and_answer).serving() as server:
        outputs = roll_out(server.address, tmp_path)
    assert len(outputs) == 4
    for output in outputs:
        roles, texts = zip(*output["conversation"], strict=True)
        assert roles == ("assistant", "user", "assistant", "user")
        assert "validation mae: 32.2688" in texts[1] and output["error"] is None
        assert output["reward"] == output["metrics"]["gain"] == 0.0  # that of the initial script
        assert output["metrics"]["num_turns"] == 2 and len(output["steps"]) == 2


def test_a_model_that_never_acts_ends_at_the_limit_of_steps(chat_server: Any, tmp_path: Path) -> None:
    with chat_server(lambda body: reply("I would rather talk.")).serving() as server:
        outputs = roll_out(server.address, tmp_path)
    for output in outputs:
        assert output["metrics"]["num_turns"] == 3 and output["stop_condition"] == "has_final_env_response"
        assert output["steps"] == [-1.0] * 3 and output["metrics"]["mean_step_reward"] == -1.0
