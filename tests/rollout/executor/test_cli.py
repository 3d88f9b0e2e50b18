"""`python -m rollout.executor`: the report about the machine, and one script run by hand."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rollout.executor import SandboxUnavailable
from rollout.executor.__main__ import main
from rollout.executor.backends.landlock import landlock_abi
from rollout.storage.blob_store import BlobStore

from .conftest import PYTHON, open_bubblewrap

COMMAND = [sys.executable, "-m", "rollout.executor"]


@pytest.fixture(scope="module")
def tier(tmp_path_factory: pytest.TempPathFactory) -> str:
    try:
        return open_bubblewrap(BlobStore(tmp_path_factory.mktemp("blobs")), PYTHON, slots=1).tier
    except SandboxUnavailable:
        pytest.skip("no sandbox can be made here, see test_preflight.py")


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments, "--python", str(PYTHON)], capture_output=True, text=True)


def test_doctor_says_whether_scripts_can_run_and_why_not(tier: str, tmp_path: Path) -> None:
    done = call("doctor")
    assert done.returncode == 0
    assert f"works: {tier}" in done.stdout
    assert "bubblewrap 0." in done.stdout
    done = subprocess.run([*COMMAND, "doctor", "--python", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"does not work: the task interpreter {tmp_path} does not run" in done.stdout


def test_doctor_says_whether_the_weaker_sandbox_would_work() -> None:
    (line,) = [line for line in call("doctor").stdout.splitlines() if line.startswith("landlock ")]
    assert f"ABI {landlock_abi()}" in line
    assert "works: landlock" in line or "closed to all but its owner" in line or landlock_abi() < 6


def test_the_weaker_sandbox_is_used_only_on_request_and_reported(tmp_path: Path) -> None:
    script = tmp_path / "try.py"
    script.write_text("print('ran')\n")
    done = call("run", str(script), "--isolation", "landlock")
    if done.returncode == 0:
        assert json.loads(done.stdout)["tier"] == "landlock"
    else:
        assert done.stdout == "" and len(done.stderr.splitlines()) == 1
        assert "closed to all but its owner" in done.stderr or "ABI" in done.stderr
    done = call("run", str(script), "--isolation", "landlock", "--forked")
    assert done.returncode == 2 and "--forked" in done.stderr


def test_run_shows_what_a_script_did(tier: str, tmp_path: Path) -> None:
    inputs, script, submission = tmp_path / "inputs", tmp_path / "try.py", tmp_path / "out.csv"
    inputs.mkdir()
    (inputs / "train.csv").write_text("id\n7\n")
    script.write_text("print(open('train.csv').read().split())\nopen('submission.csv', 'w').write('id\\n8\\n')\n")
    done = call("run", str(script), "--inputs", str(inputs), "--submission", str(submission))
    found = json.loads(done.stdout)
    assert found.pop("seconds") > 0
    expected = {"exit": "ok", "limit": None, "cause": None, "submission_bytes": 5, "output": "['id', '7']\n"}
    assert found == {**expected, "tier": tier}
    assert submission.read_text() == "id\n8\n"


@pytest.mark.parametrize("way", [[], ["--forked"], ["--isolation", "landlock"]])
def test_run_gives_a_script_folders_to_read(tier: str, tmp_path: Path, way: list[str]) -> None:
    inputs, script = tmp_path / "inputs", tmp_path / "try.py"
    (inputs / "train/cats").mkdir(parents=True)
    (inputs / "train/cats/1.txt").write_text("meow")
    (inputs / "ids.csv").write_text("id\n")
    script.write_text(
        "print(open('train/cats/1.txt').read(), open('ids.csv').read())\n"
        "for path in ('train/new.txt', 'train/cats/1.txt', 'ids.csv'):\n"
        "    try:\n        print(open(path, 'a'))\n    except OSError:\n        pass\n"
    )
    done = call("run", str(script), "--inputs", str(inputs), *way)
    if "landlock" in way and done.returncode == 2:
        pytest.skip(done.stderr)
    found = json.loads(done.stdout)
    assert (found["exit"], found["output"]) == ("ok", "meow id\n\n")
    (inputs / "train/link").symlink_to("cats")
    done = call("run", str(script), "--inputs", str(inputs), *way)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1) and "link" in done.stderr


def test_run_names_the_limit_that_ended_a_script(tier: str, tmp_path: Path) -> None:
    script = tmp_path / "try.py"
    script.write_text("x = bytearray(400 << 20)\nwhile True: pass\n")
    for limit, exit_, value in (("seconds", "timeout", "1.5"), ("memory_mb", "out_of_memory", "200")):
        found = json.loads(call("run", str(script), f"--limit.{limit}={value}").stdout)
        assert (found["exit"], found["limit"]) == (exit_, limit)


@pytest.mark.parametrize("way", [[], ["--forked"]])
def test_run_names_the_limit_and_the_cause_behind_a_librarys_words(tier: str, tmp_path: Path, way: list[str]) -> None:
    script = tmp_path / "try.py"
    script.write_text("import multiprocessing\nif __name__ == '__main__':\n    multiprocessing.Pool(96)\n")
    found = json.loads(call("run", str(script), "--limit.num_processes=32", *way).stdout)
    assert (found["exit"], found["limit"]) == ("out_of_processes", "num_processes")
    assert "more than 32 processes" in found["cause"] and "BlockingIOError" in found["output"]


def test_an_unreadable_script_is_reported_in_one_line(tmp_path: Path) -> None:
    done = call("run", str(tmp_path / "none.py"))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and "none.py" in done.stderr


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--limit.seconds=nan", "limits.seconds: got nan, expected a positive number"),
        ("--limit.memory_mb=-5", "limits.memory_mb: got -5, expected a positive number"),
        ("--limit.num_threads=0", "limits.num_threads: got 0, expected a positive number"),
        ("--limit.num_gpus=-1", "limits.num_gpus: got -1, expected 0 or more"),
        ("--isolation=os:path", "executor.isolation=os:path is not a sandbox backend (it has no `capabilities`"),
        ("--python=/bin/ls", "the task interpreter /bin/ls does not run: it is no Python that works; make it with"),
    ],
)
def test_options_out_of_range_are_one_line(tmp_path: Path, capsys, option: str, said: str) -> None:
    script = tmp_path / "try.py"
    script.write_text("print('ran')\n")
    assert main(["run", str(script), option]) == 2
    assert said in capsys.readouterr().err


def test_a_sandbox_that_cannot_be_made_is_one_line(tier: str, tmp_path: Path) -> None:
    script = tmp_path / "try.py"
    script.write_text("print('ran')\n")
    done = call("run", str(script), "--limit.seconds", "1e-6")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "making a sandbox" in done.stderr


def test_an_input_that_is_no_file_is_not_left_out(tmp_path: Path, capsys) -> None:
    script, folder = tmp_path / "try.py", tmp_path / "data"
    script.write_text("print('ran')\n")
    folder.mkdir()
    (folder / "train.csv").symlink_to("nowhere.csv")
    assert main(["run", str(script), "--inputs", str(folder), "--python", str(PYTHON)]) == 2
    assert f"{folder}/train.csv is no file or folder, but a broken link" in capsys.readouterr().err
