import getpass
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mlagent_jax.reporting.stage_remarks import RULES
from rollout.dataset.viewer import find_collection
from rollout.inference.supervisor import TEMP_PREFIX
from rollout.runtime.timeline import RESOURCES
from rollout.storage.trajectories import from_record, read_trajectories, to_record

from .processes import SMALL_UPDATES

SETTINGS = [
    "tasks.held_in=[digit_images]",
    "tasks.held_out=[hotel_rate]",
    "ideas.pool_size=4",
    "collect.num_trajectories=4",
    "collect.max_steps=2",
    "model.num_layers=2",
    "model.hidden_size=64",
    "model.num_heads=2",
    "model.num_kv_heads=1",
    "model.intermediate_size=128",
    "model.rope_theta=10000.0",
    "model.induction_init=false",
    "sft.wordings=2",
    "sft.max_length=1024",
    "sft.batch_size=1",
    "sft.max_steps=4",
    "sft.eval_every=2",
    "server.max_model_len=1024",
    *SMALL_UPDATES,
    "ppo.rows_per_micro_batch=1",
    "ppo.advantage=gae",  # values that differ make advantages that differ, where all of four actions fail
    "ppo.critic_warmup_updates=1",
    "evaluate.num_trajectories=1",
    "evaluate.max_steps=1",
]


def command(run_dir: Path, *settings: str) -> list[str]:
    return [sys.executable, "-m", "mlagent_jax.train", *SETTINGS, f"run_dir={run_dir}", *settings]


def train(run_dir: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(run_dir, *settings), capture_output=True, text=True)


@pytest.mark.vllm
def test_every_stage_runs_on_real_parts_and_nothing_is_done_twice(policy_server, tmp_path: Path):
    bucket = (tmp_path / "bucket" / "run").as_uri()
    served = (f"model.path={policy_server.folder}", f"server.address={policy_server.address}", f"mirror={bucket}")
    served += ("evaluate.pretrained=true",)
    run_dir = tmp_path / "run"
    done = train(run_dir, *served)
    assert done.returncode == 0, done.stderr

    summary = json.loads((run_dir / "summary.json").read_text())
    assert set(summary["stages"]) == {"collect", "sft", "ppo", "evaluate", "export"}
    for policy in ("initial", "pretrained", "sft", "ppo"):
        for split in ("held_in_relative_gain", "held_out_relative_gain"):
            assert set(summary["evaluation"][policy][split]) == {"mean", "low", "high", "n"}
    assert summary["evaluation"]["initial"]["held_in_relative_gain"]["mean"] == pytest.approx(0.0, abs=1e-6)
    assert summary["stages"]["collect"]["edit_share"] > 0

    for stage, rules in RULES.items():
        figures = summary["stages"][stage]
        assert all(remark["text"] for remark in figures["remarks"])
        for name in {name for rule in rules for name in (rule.num, *rule.total)}:
            section, _, key = name.rpartition(".")
            if section not in ("expert", "coder", "dropped_trajectories"):  # only for endpoints and chosen filters
                assert key in (figures[section] if section else figures), f"{stage}: {name}"

    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    updates = [line for line in lines if "ppo/update" in line]
    assert [line["ppo/update"] for line in updates] == [0, 1]
    assert all(line["sampler/logprob_gap_max"] < 1e-3 for line in updates)
    assert updates[0]["ppo/kl_to_sft"] == pytest.approx(0.0, abs=1e-5)
    assert {"reward/mean", "reward/invalid_share", "time/total_seconds"} <= set(updates[0])
    assert all(line["time/prompt_tokens"] > 0 for line in updates)
    assert all(0.0 < line["time/prefix_cache_hit_share"] < 1.0 for line in updates)

    assert_loads_in_transformers(run_dir / "export")
    report = (run_dir / "report.html").read_text()
    assert "data:image/svg+xml" in report and 'href="trajectories.html"' in report
    collection = find_collection(run_dir)
    assert list(collection.groups) == ["expert", "initial", "pretrained", "sft", "ppo"] and collection.page.exists()
    leftovers = {path.name for path in run_dir.iterdir()} & {"tmp", ".tmp"}
    assert not leftovers

    for machine in ("this", "another"):
        if machine == "another":
            shutil.rmtree(run_dir)
        again = train(run_dir, *served)
        assert again.returncode == 0, again.stderr
        assert "everything is done" in again.stderr
        assert json.loads((run_dir / "summary.json").read_text())["stages"] == summary["stages"]
    assert_loads_in_transformers(run_dir / "export")


@pytest.mark.slow
def test_a_table_that_nobody_prepared_goes_through_every_stage(tmp_path: Path):
    rng = np.random.default_rng(0)
    length, colour = rng.normal(30, 5, 400), rng.choice(["red", "grey"], 400)
    weight = (length**2 / 10 + 20 * (colour == "red") + rng.normal(0, 4, 400)).round(1)
    lines = [f"{long:.1f},{name},{heavy}" for long, name, heavy in zip(length, colour, weight, strict=True)]
    (tmp_path / "fish.csv").write_text("\n".join(["length,colour,weight", *lines]) + "\n")
    for name, split in (("trout", "held_in"), ("perch", "held_out")):
        made = [sys.executable, "-m", "tasks", "new", name, "--split", split, "--csv", tmp_path / "fish.csv"]
        made += ["--target", "weight", "--metric", "rmse", "--out", tmp_path / "own"]
        done = subprocess.run(made, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    run_dir = tmp_path / "run"
    done = train(run_dir, "tasks.held_in=[trout]", "tasks.held_out=[perch]", f"tasks.paths=[{tmp_path / 'own'}]")
    assert done.returncode == 0, done.stderr
    summary = json.loads((run_dir / "summary.json").read_text())
    assert set(summary["stages"]) == {"collect", "sft", "ppo", "evaluate", "export"}
    assert summary["stages"]["collect"]["edit_share"] > 0
    assert {trajectory.task for trajectory in read_trajectories(run_dir / "trajectories")} == {"trout"}


def assert_loads_in_transformers(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import mlagent_jax

    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("Best so far: run_opal.py 0.5000", return_tensors="pt").input_ids
    expected = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(ids).logits.detach().numpy()
    logits = mlagent_jax.load_policy(folder).logits(ids.numpy())
    assert abs(logits - expected).max() < 1e-4


@pytest.mark.slow
def test_a_run_that_is_killed_while_collecting_goes_on_and_leaves_no_process(tmp_path: Path):
    run_dir = tmp_path / "run"
    arguments = command(run_dir, "stage=collect", "collect.num_trajectories=6", "collect.max_steps=4")
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = run_dir / "trajectories" / "part-00000.jsonl"
    deadline = time.monotonic() + 300
    while not (journal.exists() and journal.read_text().count("\n") >= 2):
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = {record["trajectory_id"]: record for record in map(json.loads, journal.read_text().splitlines()[:2])}
    deadline = time.monotonic() + 15
    while any(str(run_dir) in line for line in processes()):
        assert time.monotonic() < deadline, "something of the run is still alive"
        time.sleep(0.1)

    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((run_dir / "summary.json").read_text())["stages"]["collect"]["num_trajectories"] == 6
    trajectories = {trajectory.trajectory_id: trajectory for trajectory in read_trajectories(journal.parent)}
    assert len(trajectories) == 6
    assert all(to_record(trajectories[name]) == to_record(from_record(record)) for name, record in before.items())


@pytest.mark.slow
def test_a_run_that_is_killed_in_ppo_leaves_nothing_outside_and_goes_on(tmp_path: Path):
    run_dir, temporary = tmp_path / "run", tmp_path / "temporary"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    shared_memory = set(os.listdir("/dev/shm"))
    sockets = set(Path("/tmp").glob(f"{TEMP_PREFIX}*"))
    ahead = ("ppo.states=evolving", "ppo.max_staleness=1")  # with actions of the next update under way
    arguments = command(run_dir, "ppo.num_updates=6", "ppo.checkpoint_every=1", *ahead)
    process = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics = run_dir / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (metrics.exists() and "ppo/update" in metrics.read_text()):
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    # the server is there, so there is something to leave; its sockets have no room under pytest's long paths
    assert set(os.listdir("/dev/shm")) > shared_memory and set(Path("/tmp").glob(f"{TEMP_PREFIX}*")) > sockets
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 30
    while any(str(run_dir) in line for line in processes()):
        assert time.monotonic() < deadline, "something of the run is still alive"
        time.sleep(0.1)
    caches = {"torchinductor_" + getpass.getuser()}
    assert set(os.listdir(temporary)) <= caches and set(os.listdir("/dev/shm")) <= shared_memory
    assert set(Path("/tmp").glob(f"{TEMP_PREFIX}*")) <= sockets

    done = subprocess.run(arguments, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "collect" not in done.stderr and "ppo: going on where it stopped" in done.stderr
    assert set(os.listdir(temporary)) <= caches and set(os.listdir("/dev/shm")) <= shared_memory
    assert (run_dir / "export" / "model.safetensors").exists()
    updates = [line for line in map(json.loads, metrics.read_text().splitlines()) if "ppo/update" in line]
    assert [line["ppo/update"] for line in updates] == list(range(6))
    staleness = [line["sampler/staleness_mean"] for line in updates]
    assert staleness[0] == 0.0 and all(0.0 <= each <= 1.0 for each in staleness) and max(staleness) > 0.5
    trace = json.loads((run_dir / "timeline.json").read_text().rstrip().rstrip(",") + "]")
    assert {event["cat"] for event in trace if event["ph"] == "X"} == set(RESOURCES)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_with_more_room_the_run_goes_on(tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", disk], capture_output=True).returncode:
        pytest.skip("this user may not mount a small disk")
    run = " ".join(map(shlex.quote, command(disk / "run", "stage=collect", "collect.num_trajectories=6")))
    journal = shlex.quote(str(disk / "run" / "trajectories" / "part-00000.jsonl"))
    script = f"""
        mount -t tmpfs -o size=64m none {disk}
        {run} &
        until [ -s {journal} ]; do kill -0 $! || exit 9; sleep 0.05; done
        cat /dev/zero > {disk}/ballast 2> /dev/null
        wait $!; echo code $?
        cp {journal} {tmp_path}/before
        rm {disk}/ballast
        {run}; echo code $?
        cp -r {disk}/run/trajectories {tmp_path}/trajectories
    """
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True)
    assert [line for line in done.stdout.splitlines() if line.startswith("code")] == ["code 2", "code 0"], done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and "the disk is full" in said[0] and "free some space" in said[0]
    kept = [json.loads(line)["trajectory_id"] for line in (tmp_path / "before").read_text().splitlines()]
    trajectories = {trajectory.trajectory_id for trajectory in read_trajectories(tmp_path / "trajectories")}
    assert kept and trajectories.issuperset(kept) and len(trajectories) == 6


def processes() -> list[str]:
    lines = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                lines.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue
    return lines
