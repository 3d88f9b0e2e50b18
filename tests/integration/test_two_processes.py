"""Two real processes fine-tune as one does, stop together when one is told to, and end together when one fails."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mlagent_jax.train import PREEMPTED

from .processes import STEPS, Launched, collected, launch, metrics, wait_for_steps, weights

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory, programs: Path) -> Path:
    """A run directory in which two processes have fine-tuned, uninterrupted."""
    folder = collected(tmp_path_factory.mktemp("two") / "run")
    codes, said = launch(programs, 2, "stage=sft", f"run_dir={folder}").wait()
    assert codes == [0, 0], said
    return folder


def test_two_processes_train_as_one(by_two: Path, programs: Path, tmp_path: Path) -> None:
    alone = collected(tmp_path / "run")
    codes, said = launch(programs, 1, "stage=sft", f"run_dir={alone}").wait()
    assert codes == [0], said
    found, expected = metrics(by_two), metrics(alone)
    assert [line["sft/step"] for line in found] == list(range(1, STEPS + 1))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    assert expected[-1]["sft/loss"] < 0.5 * expected[0]["sft/loss"]
    for name, tensor in weights(alone).items():
        # adam divides by |g|: rounding in a gradient near 0 moves a parameter by some of the learning rate, 6e-3
        np.testing.assert_allclose(weights(by_two)[name], tensor, rtol=1e-5, atol=1e-5, err_msg=name)
    figures = [json.loads((folder / "stages" / "sft.json").read_text())["figures"] for folder in (by_two, alone)]
    assert figures[0]["tokens"] == figures[1]["tokens"]


def test_sigterm_to_one_of_two_saves_and_the_same_command_goes_on(by_two: Path, programs: Path, tmp_path: Path) -> None:
    folder = collected(tmp_path / "run")
    with launch(programs, 2, "stage=sft", f"run_dir={folder}") as launched:
        wait_for_steps(launched, folder, 3)
        launched.processes[1].send_signal(signal.SIGTERM)
        codes, said = launched.wait()
    assert codes == [PREEMPTED, PREEMPTED], said
    assert all("run the same command to go on" in text and "Traceback" not in text for text in said), said
    done = len(metrics(folder))
    assert [path.name for path in (folder / "sft" / "checkpoints").iterdir()] == [str(done)]
    assert 3 <= done < STEPS
    codes, said = launch(programs, 2, "stage=sft", f"run_dir={folder}").wait()
    assert codes == [0, 0], said
    assert metrics(folder) == metrics(by_two)
    for name, tensor in weights(by_two).items():
        np.testing.assert_array_equal(weights(folder)[name], tensor, err_msg=name)


@pytest.mark.parametrize("killed", [0, 1])
def test_one_that_is_killed_ends_the_other(killed: int, programs: Path, tmp_path: Path) -> None:
    folder = collected(tmp_path / "run")
    with launch(programs, 2, "stage=sft", f"run_dir={folder}") as launched:
        wait_for_steps(launched, folder, 2)
        os.kill(launched.processes[killed].pid, signal.SIGKILL)
        began = time.monotonic()
        codes, said = launched.wait(seconds=90)
        assert time.monotonic() - began < 60
    assert codes[killed] == -signal.SIGKILL and codes[1 - killed] not in (0, PREEMPTED), codes
    words = ("another process of this run is gone", "another task died", "leader task was preempted/died")
    assert any(some in said[1 - killed] for some in words), said[1 - killed]


@pytest.mark.parametrize("failing", [0, 1])
def test_failure_of_one_is_that_of_all(failing: int, programs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"  # nothing is collected: process 0 refuses to fine-tune
    other = [(), ("seed=1",)] if failing == 1 else [(), ()]
    if failing == 1:
        collected(folder)
    codes, said = launch(programs, 2, "stage=sft", f"run_dir={folder}", by_process=other).wait(90)
    assert codes == [2, 2], said
    words = "run stage=collect first" if failing == 0 else "other settings than process 0"
    assert words in said[failing] and f"process {failing} of 2 failed: " in said[1 - failing]
    assert all(text.count("error: ") == 1 and "Traceback" not in text for text in said), said


MEETING = """
import sys, time, traceback
import jax, numpy as np
from jax.experimental import multihost_utils
from mlagent_jax.multihost import distributed
distributed.initialize()
leads = distributed.is_main()
try:
    for comes_last in (leads, not leads):
        for flag, expected in ((False, False), (leads, True), (not leads, True), (True, True)):
            time.sleep(0.5 * comes_last)
            assert distributed.any_process(flag) is expected
    if leads:
        time.sleep(float(sys.argv[1]))  # as if the policy server were started again
    distributed.meet()
    found = multihost_utils.process_allgather(np.array(distributed.process_index()))
    assert sorted(found.tolist()) == [0, 1]
    distributed.from_main(lambda: None)
except BaseException as error:
    traceback.print_exc()
    distributed.leave(1, repr(error))
distributed.leave(0)
"""


def test_processes_wait_for_one_that_is_late_for_longer_than_a_collective_may_take() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for number in range(2):
        environment = {**os.environ, "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2"}
        environment |= {"JAX_PROCESS_ID": str(number), "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.getcwd()}
        command = [sys.executable, "-c", MEETING, "75"]
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    codes, said = Launched(processes).wait(seconds=300)
    assert codes == [0, 0], said
