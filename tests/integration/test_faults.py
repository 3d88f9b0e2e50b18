"""Whole runs whose server dies in mid-update or whose disk fills inside a checkpoint: nothing is lost."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .processes import SETTINGS, collected, metrics, weights
from .test_whole_run import command

pytestmark = pytest.mark.slow


def api_servers(run_dir: Path) -> list[int]:
    """Return the processes of vLLM that serve a directory of a run."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            words = (
                (folder / "cmdline").read_bytes().decode(errors="replace").split("\0") if folder.name.isdigit() else []
            )
        except OSError:
            continue
        if "vllm.entrypoints.openai.api_server" in words and any(str(run_dir) in word for word in words):
            found.append(int(folder.name))
    return found


WAYS = {
    "load": (),
    "restart": ("server.new_weights=restart",),
    "adapter": ("adapter.rank=4", "adapter.first_stage=ppo", "server.weight_transfer=adapter"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_run_whose_server_dies_in_mid_update_goes_on_by_itself(tmp_path: Path, way: str) -> None:
    run_dir = tmp_path / "run"
    arguments = command(run_dir, *WAYS[way], "ppo.num_updates=3", "ppo.critic_warmup_updates=0")
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    journal = run_dir / "ppo" / "actions" / "00001.jsonl"  # of the second update, which samples from new weights
    deadline = time.monotonic() + 600
    while not journal.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    (server,) = api_servers(run_dir)
    os.kill(server, signal.SIGKILL)
    _, said = process.communicate(timeout=900)
    assert process.returncode == 0, said
    updates = [line for line in metrics(run_dir) if "ppo/update" in line]
    assert [line["ppo/update"] for line in updates] == [0, 1, 2]
    assert sum(line["server/restarts"] for line in updates) == 1
    # The weights are those that the server had: trainer and server agree on every response, whose rewards are real.
    assert all(line["sampler/logprob_gap_max"] < 1e-3 for line in updates)
    assert all(line["sampler/staleness_mean"] == 0.0 and line["reward/masked_share"] == 0.0 for line in updates)
    remarks = json.loads((run_dir / "summary.json").read_text())["stages"]["ppo"]["remarks"]
    assert any("updates lost the policy server, which got its weights again" in remark["text"] for remark in remarks)
    assert "the policy server ended" in (run_dir / "log.txt").read_text()
    if way == "restart":  # on the fine-tuned policy, after each update, after the loss, and on two for the evaluation
        log = (run_dir / "server.log").read_text().splitlines()
        assert sum(line.startswith("serving ") for line in log) == 1 + 3 + 1 + 2
    assert api_servers(run_dir) == []
    assert (run_dir / "export" / "adapter").is_dir() == (way == "adapter")


def test_a_run_whose_disk_fills_inside_a_checkpoint_goes_on_to_the_same_result(tmp_path: Path) -> None:
    disk, source, undisturbed = tmp_path / "disk", collected(tmp_path / "source"), tmp_path / "undisturbed"
    disk.mkdir()
    if subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", disk], capture_output=True).returncode:
        pytest.skip("this user may not mount a small disk")
    train = ["mlagent_jax.train", *SETTINGS, "mesh.data=1", "mesh.fsdp=1", "sft.eval_every=1", "stage=sft"]
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}

    def run(folder: Path) -> str:
        return shlex.join([sys.executable, "-m", *train, f"run_dir={folder}"])

    checkpoints = shlex.quote(str(disk / "run" / "sft" / "checkpoints"))
    script = f"""
        cp -r {source} {undisturbed} && {run(undisturbed)} || exit 9
        mount -t tmpfs -o size=200m none {disk}
        cp -r {source} {disk}/run
        {run(disk / "run")} &
        until ls {checkpoints}/*/digests.json > /dev/null 2>&1; do kill -0 $! || exit 9; sleep 0.02; done
        cat /dev/zero > {disk}/ballast 2> /dev/null
        truncate -s -300K {disk}/ballast
        wait $!; echo code $?
        ls {checkpoints}/*/digests.json
        rm {disk}/ballast
        {run(disk / "run")}; echo code $?
        cp -r {disk}/run {tmp_path}/run
    """
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, env=environment)
    assert [line for line in done.stdout.splitlines() if line.startswith("code")] == ["code 2", "code 0"], done.stderr
    assert "/digests.json" in done.stdout, "the checkpoint before is still whole"
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "the disk is full" in said and "run the same command to go on" in said
    found, expected = metrics(tmp_path / "run"), metrics(undisturbed)
    assert found == expected and len(found) == 30
    for name, tensor in weights(undisturbed).items():
        assert (weights(tmp_path / "run")[name] == tensor).all(), name
