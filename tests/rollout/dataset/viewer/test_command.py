"""`python -m rollout.dataset view` finds trajectories, tasks and reward of a run, and says in a line what is wrong."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rollout.dataset.__main__ import main
from rollout.dataset.viewer import find_collection
from rollout.storage.trajectories import write_trajectories
from tasks.registry import find


@pytest.fixture
def run_dir(collection: Any, tmp_path: Path) -> Path:
    """A run that has collected, in two files, and evaluated two policies."""
    root = tmp_path / "runs" / "toys"
    expert = collection.groups["expert"]
    write_trajectories(root / "trajectories" / "part-00000.parquet", expert[:10])
    write_trajectories(root / "trajectories" / "part-00001.parquet", expert[10:])
    for name in ("ppo", "initial"):
        write_trajectories(root / "evaluate" / name / "part-00000.parquet", collection.groups["ppo"])
    (root / "evaluate" / "edits.json").write_text("{}")
    return root


def prepared_task(collection: Any, root: Path) -> None:
    """Gives the run a folder with a task of its own, prepared: from 0.25 to 0.75."""
    folder = root.parent / "my_tasks" / "amber_price"
    data = root / "data" / "amber_price"
    for part in ("public", "private"):
        (data / part).mkdir(parents=True)
    source = find("house_price").folder
    folder.mkdir(parents=True)
    for name in ("train.py", "problem.md"):
        (folder / name).write_text((source / name).read_text())
    text = (source / "task.yaml").read_text().replace("house_price", "amber_price")
    (folder / "task.yaml").write_text(text)
    entry = find("amber_price", [folder])
    measured = {"m_init": 40.0, "validation_init": 41.0, "noise": 0.0, "script_seconds": 1.0}
    origin = {"sources": {}, "checksum": "", "fingerprint": entry.fingerprint()}
    (data / "task.json").write_text(json.dumps(measured | origin))
    config = {"tasks": {"paths": [str(folder.parent)]}, "reward": {"version": "v1"}}
    (root / "config.yaml").write_text(json.dumps(config))


def test_run_gives_all_its_groups(run_dir: Path, decode: Callable[..., Any], capsys: pytest.CaptureFixture) -> None:
    assert main(["view", str(run_dir)]) == 0
    assert capsys.readouterr().out.startswith(f"{run_dir / 'trajectories.html'}: 53 trajectories, ")
    index = decode(run_dir / "trajectories.html").index
    assert index["groups"] == ["expert", "initial", "ppo"] and index["title"] == "runs/toys"
    assert [index["rows"]["group"].count(number) for number in range(3)] == [29, 12, 12]


def test_folder_of_trajectories_alone_gives_its_own(run_dir: Path, decode: Callable[..., Any]) -> None:
    assert main(["view", str(run_dir / "evaluate" / "ppo")]) == 0
    assert decode(run_dir / "evaluate" / "ppo.html").index["groups"] == ["ppo"]
    assert find_collection(run_dir / "evaluate" / "ppo").root == run_dir
    assert find_collection(run_dir / "trajectories").root == run_dir


def test_tasks_and_reward_are_those_of_the_run(
    collection: Any, run_dir: Path, decode: Callable[..., Any], tmp_path: Path
) -> None:
    prepared_task(collection, run_dir)
    assert main(["view", str(run_dir), "--out", str(tmp_path / "new" / "page.html")]) == 0
    found = decode(tmp_path / "new" / "page.html")
    tasks = {task["name"]: task for task in found.index["tasks"]}
    assert tasks["amber_price"]["m_init"] == 40.0 and tasks["birch_sound"] == {"name": "birch_sound"}
    assert found.index["rules"]["version"] == "v1"
    rewards = {step["reward"] for one in found.trajectories if one["task"] == "amber_price" for step in one["steps"]}
    assert rewards >= {0.0, 0.5}  # v1's of an error and of an action that edits nothing
    assert found.index["rows"]["gain"][0] is not None and found.index["rows"]["gain"][1] is None


def test_task_whose_data_is_of_another_version_is_said_and_left_out(
    collection: Any, run_dir: Path, decode: Callable[..., Any], capsys: pytest.CaptureFixture
) -> None:
    prepared_task(collection, run_dir)
    (run_dir.parent / "my_tasks" / "amber_price" / "train.py").write_text("another = 1\n")
    assert main(["view", str(run_dir)]) == 0
    said = capsys.readouterr()
    assert "without gains and rewards: task amber_price" in said.err and "no task is known" in said.out
    assert set(decode(run_dir / "trajectories.html").index["rows"]["gain"]) == {None}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "there are no trajectories in"),
        (["evaluate"], "run stage=collect first"),
        (["trajectories", "--data", "no_data"], "there is no folder no_data; name the folder"),
        (["broken"], "does not read as trajectories"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    run_dir: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture
) -> None:
    (run_dir / "broken").mkdir()
    (run_dir / "broken" / "part-00000.parquet").write_bytes(b"PAR1 or so")
    assert main(["view", str(run_dir / arguments[0]), *arguments[1:]]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert not list(run_dir.glob("**/*.html"))


def test_folder_of_tasks_that_is_gone_is_said_and_left_out(
    collection: Any, run_dir: Path, capsys: pytest.CaptureFixture
) -> None:
    prepared_task(collection, run_dir)
    shutil.rmtree(run_dir.parent / "my_tasks")
    assert main(["view", str(run_dir)]) == 0
    assert "without gains and rewards: there is no task in" in capsys.readouterr().err


def test_configuration_that_is_not_yaml_is_said(run_dir: Path, capsys: pytest.CaptureFixture) -> None:
    (run_dir / "config.yaml").write_text("a: [")
    assert main(["view", str(run_dir)]) == 2
    assert "is not YAML" in capsys.readouterr().err
