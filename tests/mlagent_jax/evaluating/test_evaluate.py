"""`mlagent evaluate` with real sandboxes: results, resumption, and failures that cost no other result."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mlagent_jax.evaluating.automl import INSTALLED_AT
from mlagent_jax.evaluating.command import main
from rollout.errors import ServerError
from rollout.sampling.evaluation import InitialScriptActor
from rollout.storage.trajectories import read_trajectories
from rollout.types import Response, Trajectory
from tasks.state import State
from tasks.task import Instance

ROOT = Path(__file__).parents[3]

LIMITS = ["-k", "2", "--steps", "3", "--minutes", "1", "--tasks", "house_price", "leaf_species"]


def evaluate(out: Path, *agents: str, more: tuple[str, ...] = ()) -> int:
    return main(["--agents", *agents, *LIMITS, "--out", str(out), *more])


def results(out: Path) -> dict[str, Any]:
    return json.loads((out / "results.json").read_text())


def trajectories(out: Path, agent: str, seed: int = 0) -> list[Trajectory]:
    return read_trajectories(out / "agents" / agent / f"seed-{seed}")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished evaluation of three agents."""
    out = tmp_path_factory.mktemp("evaluation") / "out"
    assert evaluate(out, "initial", "random", "scripted") == 0
    return out


def test_every_agent_has_figures_pages_and_grading_reports(done: Path) -> None:
    result = results(done)
    assert set(result["agents"]) == {"initial", "random", "scripted"} and not result["failures"]
    initial = result["agents"]["initial"]["all"]
    assert initial["gain"] == {"mean": 0.0, "low": 0.0, "high": 0.0, "n": 4} and initial["submitted_share"] == 1.0
    assert initial["steps_to_first_submission"] == 1.0
    own = trajectories(done, "scripted")
    assert len(own) == 4 and all(0 < len(one.steps) <= 3 for one in own) and all(one.ideas for one in own)
    for name in ("initial", "random", "scripted"):
        assert json.loads((done / "mle_bench" / name / "seed-0.json").read_text())["total_runs"] == 2
    assert "scripted" in (done / "report.html").read_text() and (done / "trajectories.html").exists()
    assert not (done / "tmp").exists()


def test_all_agents_meet_the_same_episodes(done: Path) -> None:
    names = [[(one.trajectory_id, one.names) for one in trajectories(done, agent)] for agent in ("initial", "random")]
    assert names[0] == names[1]


def test_no_hidden_score_is_in_anything_that_an_agent_reads(done: Path) -> None:
    seen = 0
    for agent in ("initial", "random", "scripted"):
        for one in trajectories(done, agent):
            text = one.problem + "".join(step.feedback.text for step in one.steps)
            hidden = {step.after.last_submission for step in one.steps} - {None}
            printed = {float(number) for number in re.findall(r"-?\d+\.\d+", text)}
            seen += len(hidden)
            for score in hidden:
                assert all(abs(score - number) > 1e-3 * abs(score) for number in printed), (agent, one.trajectory_id)
    assert seen > 6


def test_the_same_command_does_nothing_again_and_other_agents_and_seeds_are_added(done: Path) -> None:
    parts = {path: path.stat().st_mtime_ns for path in done.rglob("part-*")}
    assert evaluate(done, "initial", "again=initial", more=("--seeds", "2")) == 0
    assert parts.items() <= {path: path.stat().st_mtime_ns for path in done.rglob("part-*")}.items()
    assert set(results(done)["agents"]) == {"initial", "again", "random", "scripted"}  # those of before stay
    assert results(done)["agents"]["again"]["all"]["gain"]["n"] == 8
    assert {one.seed for one in trajectories(done, "again")} != {one.seed for one in trajectories(done, "again", 1)}


def test_other_limits_are_refused_in_the_same_folder(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(done, "random", more=("--steps", "4")) == 2
    said = capsys.readouterr().err
    assert (
        "holds results of random with other steps 3, not 4; give the agent another name, or choose another --out"
        in said
    )


@pytest.mark.slow
def test_a_changed_task_is_not_taken_for_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "tasks" / "own_prices"
    shutil.copytree(ROOT / "tasks" / "catalog" / "house_price", own)
    stated = (own / "task.yaml").read_text().replace("name: house_price", "name: own_prices")
    (own / "task.yaml").write_text(stated)
    command = ["--agents", "initial", "--tasks", "own_prices", "--path", str(own.parent), "-k", "1", "--out"]
    assert main([*command, str(tmp_path / "out")]) == 0
    (own / "train.py").write_text((own / "train.py").read_text() + "\n# changed\n")
    assert main([*command, str(tmp_path / "out")]) == 2
    assert "holds results of initial with other tasks; give the agent another name" in capsys.readouterr().err


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.html").write_text("a run's")
    assert evaluate(tmp_path, "initial") == 2
    assert "holds other files; choose another --out" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.slow
def test_lost_episodes_are_tried_again_instead_of_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    act, loses = InitialScriptActor.act, {"leaf_species"}

    async def losing(self: InitialScriptActor, instance: Instance, state: State, seed: int) -> Response:
        if instance.task.name in loses:
            raise ServerError("lost")
        return await act(self, instance, state, seed)

    monkeypatch.setattr(InitialScriptActor, "act", losing)
    command = [
        "--agents",
        "initial",
        "random",
        "--tasks",
        "house_price",
        "leaf_species",
        "-k",
        "1",
        "--steps",
        "1",
        "--out",
    ]
    assert main([*command, str(tmp_path / "out")]) == 3
    assert "initial was not evaluated: 1 of 2 episodes were lost to failures" in capsys.readouterr().out
    assert set(results(tmp_path / "out")["agents"]) == {"random"}
    loses.clear()
    assert main([*command, str(tmp_path / "out")]) == 0
    assert results(tmp_path / "out")["agents"]["initial"]["all"]["tasks"] == 2


@pytest.mark.parametrize("name", ["agent.json", "usage.json"])
@pytest.mark.parametrize("content", ["{", "[]"])
def test_damaged_records_are_one_line_or_made_again(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(done, out, symlinks=True)
    (out / "agents" / "initial" / name).write_text(content)
    code = evaluate(out, "initial")
    said = capsys.readouterr().err
    if name == "agent.json":
        assert code == 2 and "agent.json is damaged; remove the agent's results with `rm -r " in said
        assert said.splitlines()[-1].startswith("error: ")
    else:
        assert code == 0


def test_an_endpoint_that_does_not_answer_costs_no_other_result(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agents = "initial", "away=http://127.0.0.1:9/v1"
    assert evaluate(done, *agents, more=("--model", "away=m")) == 3
    result = results(done)
    assert {"initial", "random"} <= set(result["agents"]) and "away" not in result["agents"]
    assert "127.0.0.1:9" in result["failures"]["away"]
    assert "away was not evaluated" in (done / "report.html").read_text()
    assert "away was not evaluated: " in capsys.readouterr().out


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_and_ends_like_one_that_was_not(done: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "mlagent_jax.evaluate", "--agents", "scripted", *LIMITS, "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ends = time.monotonic() + 120
    while not any(path.stat().st_size for path in out.rglob("part-*")):
        assert time.monotonic() < ends and process.poll() is None, "it did not begin"
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "agents" / "scripted" / "seed-0" / "DONE").exists()
    assert subprocess.run(command, capture_output=True).returncode == 0

    def learned(folder: Path) -> list[Any]:
        return [
            (one.trajectory_id, one.ideas, [(step.response, step.after.last_submission) for step in one.steps])
            for one in trajectories(folder, "scripted")
        ]

    assert learned(out) == learned(done)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_with_more_room_the_evaluation_goes_on(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", disk], capture_output=True).returncode:
        pytest.skip("this user may not mount a small disk")
    command = [sys.executable, "-m", "mlagent_jax.evaluate", "--agents", "initial", "scripted", *LIMITS, "--out"]
    run = shlex.join([*command, str(disk / "out")])
    first = shlex.quote(str(disk / "out" / "agents" / "initial" / "seed-0" / "DONE"))
    script = f"""
        mount -t tmpfs -o size=64m none {disk}
        {run} &
        until [ -f {first} ]; do kill -0 $! || exit 9; sleep 0.05; done
        cat /dev/zero > {disk}/ballast 2> /dev/null
        wait $!; echo code $?
        rm {disk}/ballast
        {run}; echo code $?
        cp {disk}/out/results.json {tmp_path}/results.json
    """
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True)
    assert [line for line in done.stdout.splitlines() if line.startswith("code")] == ["code 2", "code 0"], done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and "No space left on device" in said[0] and "free some space" in said[0]
    assert set(results(tmp_path)["agents"]) == {"initial", "scripted"}


@pytest.mark.slow
def test_automl_fits_every_kind_of_metric(tmp_path: Path) -> None:
    if not (Path(sys.prefix) / INSTALLED_AT).exists():
        pytest.skip("FLAML is not here: make automl")
    tasks = ["check_time", "credit_status", "customer_churn", "leaf_species", "product_rating", "tweet_device"]
    assert main(["--agents", "automl", "--tasks", *tasks, "--minutes", "0.1", "--out", str(tmp_path / "out")]) == 0
    result = results(tmp_path / "out")
    assert result["agents"]["automl"]["all"]["submitted_share"] == 1.0, result["tasks"]
    assert result["agents"]["automl"]["all"]["gain"]["mean"] > 0.2, result["tasks"]
