"""An exported task is one that Harbor accepts, and its container's layout grades submissions as we do."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rollout.executor.backends.bubblewrap.command import find_bwrap
from rollout.executor.interpreter import TASK_PYTHON
from rollout.task_tools.harbor import export_harbor
from tasks.__main__ import main
from tasks.grading import grade
from tasks.registry import find, load

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    assert main(["prepare", "house_price", "leaf_species", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def exported(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported")
    names = "house_price", "leaf_species"
    assert main(["export", *names, "--to", "harbor", "--out", str(out), "--data", str(data)]) == 0
    return out


def run_in_container(folder: Path, work: Path, script: str) -> None:
    """Run a script of an exported task with the folders where its container has them."""
    logs = work / "logs"
    if not (work / "app").exists():
        shutil.copytree(folder / "environment" / "files", work / "app")
        logs.mkdir()
    command = [str(find_bwrap()), "--unshare-net", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]
    for top in sorted(set(os.listdir("/")) - {"app", "tests", "logs", "solution", "dev", "proc", "tmp", "sys"}):
        command += ["--ro-bind-try", f"/{top}", f"/{top}"]
    command += ["--bind", str(work / "app"), "/app", "--bind", str(logs), "/logs"]
    command += ["--ro-bind", str(folder / "tests"), "/tests", "--ro-bind", str(folder / "solution"), "/solution"]
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([*command, script], env=environment, check=True, timeout=120)


def reward(work: Path) -> dict[str, Any]:
    return json.loads((work / "logs" / "verifier" / "reward.json").read_text())


@pytest.mark.parametrize("name", ["house_price", "leaf_species"])
def test_the_initial_script_has_a_valid_submission_without_gain(exported: Path, tmp_path: Path, name: str) -> None:
    run_in_container(exported / name, tmp_path, "/solution/solve.sh")
    run_in_container(exported / name, tmp_path, "/tests/test.sh")
    found = reward(tmp_path)
    assert found["valid"] == 1.0 and found["gain"] == pytest.approx(0, abs=0.02) and 0 <= found["reward"] < 0.02


def test_the_reward_is_the_gain_by_our_grader(exported: Path, data: Path, tmp_path: Path) -> None:
    task = load("house_price", data)
    app = tmp_path / "app"
    shutil.copytree(exported / "house_price" / "environment" / "files", app)
    (tmp_path / "logs").mkdir()
    answers = (task.private / "answers.csv").read_text()
    (app / "submission.csv").write_text(answers)
    run_in_container(exported / "house_price", tmp_path, "/tests/test.sh")
    perfect = task.gain(grade(task, answers.encode()))
    assert reward(tmp_path) == {"reward": 1.0, "gain": pytest.approx(perfect), "valid": 1.0}


@pytest.mark.parametrize("content", [None, "id,target\n", "no table"])
def test_no_valid_submission_has_no_reward(exported: Path, tmp_path: Path, content: str | None) -> None:
    shutil.copytree(exported / "house_price" / "environment" / "files", tmp_path / "app")
    (tmp_path / "logs").mkdir()
    if content is not None:
        (tmp_path / "app" / "submission.csv").write_text(content)
    run_in_container(exported / "house_price", tmp_path, "/tests/test.sh")
    assert reward(tmp_path) == {"reward": 0.0, "gain": 0.0, "valid": 0.0}


def test_the_agents_part_has_no_answers(exported: Path, data: Path) -> None:
    private = {path.read_bytes() for path in (data / "house_price" / "private").iterdir()}
    for path in (exported / "house_price" / "environment").rglob("*"):
        assert not path.is_file() or path.read_bytes() not in private
    instruction = (exported / "house_price" / "instruction.md").read_text()
    assert str(load("house_price", data).m_init)[:6] not in instruction and "submission.csv" in instruction


def test_an_existing_folder_is_left_alone(exported: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="exists; remove it, or choose another --out"):
        export_harbor(load("house_price", data), find("house_price"), exported, TASK_PYTHON)
    assert main(["export", "no_task", "--to", "harbor", "--out", str(exported), "--data", str(data)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_settings_are_those_of_harbors_schema(exported: Path) -> None:
    """Without Harbor, which needs Python 3.12: the sections and keys of its `TaskConfig`, schema 1.4."""
    import tomllib

    found = tomllib.loads((exported / "house_price" / "task.toml").read_text())
    assert set(found) == {"schema_version", "artifacts", "metadata", "agent", "verifier", "environment"}
    assert found["artifacts"] == ["/app/submission.csv"] and found["verifier"]["environment_mode"] == "separate"
    assert set(found["environment"]) == {"cpus", "memory_mb", "network_mode", "workdir"}
    assert found["environment"]["network_mode"] == "no-network" and found["agent"]["timeout_sec"] == 1800.0
