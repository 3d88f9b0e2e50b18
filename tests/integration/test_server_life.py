"""The real server's whole life, in processes of its own: these tests start vLLM themselves."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from rollout.errors import ServerError
from rollout.inference.access import KEY_VARIABLE
from rollout.inference.description import read_description
from rollout.inference.server import free_port, is_healthy
from rollout.inference.server_process import ServerProcess
from rollout.inference.supervisor import TEMP_PREFIX, is_running, remove_stale_folders

pytestmark = pytest.mark.slow

TRAINER = """
import sys, time
from pathlib import Path
from rollout.inference.server import ServerOptions
from rollout.inference.server_process import ServerProcess
server = ServerProcess(Path(sys.argv[1]), Path(sys.argv[2]), ServerOptions(max_model_len=256, kv_cache_mb=16))
server.launch()
print(server.process.pid, server.port, flush=True)
print(server.wait_ready(), flush=True)
time.sleep(600)
"""

# What a run does, up to the first restart, which it is interrupted in.
RESTARTING = """
import signal, sys
from pathlib import Path
from mlagent_jax.configuration.loading import load_config
from mlagent_jax.run.policy_server import PolicyServer, connect
from rollout.runtime.event_loop import EventLoopThread
from rollout.tokenizer.chat import ChatTokenizer
signal.signal(signal.SIGINT, signal.default_int_handler)  # which who started the tests may have switched off
first, second, run_dir = map(Path, sys.argv[1:])
config = load_config(None, ["server.new_weights=restart", "server.max_model_len=256", "server.kv_cache_mb=16"])
with EventLoopThread() as event_loop, PolicyServer(config.server, run_dir / "server.log", run_dir) as server:
    server.launch(first)
    with connect(server, event_loop, 1.0, 16, [ChatTokenizer(first, "").eos_id]) as client:
        event_loop.run(client.update_weights(second, 1))
"""


def descendants(pid: int) -> list[int]:
    """Returns every process below one."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            if parent == pid:
                found += [int(folder.name), *descendants(int(folder.name))]
    return found


def files_of(pids: list[int]) -> set[Path]:
    """Returns the temporary folders of supervisors, and what of shared memory processes have mapped."""
    found = {path for pid in pids for path in Path(tempfile.gettempdir()).glob(f"{TEMP_PREFIX}{pid}-*")}
    for pid in pids:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
        inodes = {int(line.split()[4]) for line in lines if " /dev/shm/" in line}
        found |= {Path(entry.path) for entry in os.scandir("/dev/shm") if entry.inode() in inodes}
    return found


@pytest.mark.parametrize("victim", ["trainer", "supervisor", "api_server"])
def test_a_kill_at_any_level_leaves_no_process_and_no_file(victim, checkpoint, tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    trainer = subprocess.Popen(
        [sys.executable, "-c", TRAINER, str(checkpoint), str(tmp_path / "log")],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert trainer.stdout is not None
    try:
        supervisor, port = map(int, trainer.stdout.readline().split())
        address = trainer.stdout.readline().strip()
        assert is_healthy(address) and address.endswith(str(port))
        below = descendants(supervisor)
        assert len(below) >= 2  # the API server and its engine
        files = files_of([supervisor, *below])
        assert {path.parent for path in files} == {Path(tempfile.gettempdir()), Path("/dev/shm")}

        api_server = next(pid for pid in below if b"api_server" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill({"trainer": trainer.pid, "supervisor": supervisor, "api_server": api_server}[victim], signal.SIGKILL)
        deadline = time.monotonic() + 30
        while any(map(is_running, [supervisor, *below])) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert [pid for pid in [supervisor, *below] if is_running(pid)] == []
        if victim == "supervisor":  # nobody is left to remove its folder: the next server does
            remove_stale_folders()
        assert [path for path in files if path.exists()] == []
    finally:
        trainer.kill()
        trainer.wait()
        trainer.stdout.close()


def test_a_server_for_other_machines_keeps_its_key_and_none_of_the_users_secrets(checkpoint, tmp_path):
    port, key = free_port(), "the-key-of-this-server"
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), KEY_VARIABLE: key, "OPENAI_API_KEY": "planted-secret"}
    command = [sys.executable, "-m", "rollout.server", "--model", str(checkpoint), "--host", "0.0.0.0"]
    command += ["--port", str(port), "--max-model-len", "256", "--kv-cache-mb", "16"]
    address = f"http://{socket.gethostbyname(socket.gethostname())}:{port}"
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 300
        while not is_healthy(address):
            assert server.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()[-2000:]
            time.sleep(0.2)
        below = descendants(server.pid)
        for pid in below:
            entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            assert not [entry for entry in entries if b"planted-secret" in entry]
            assert key.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert len(below) >= 2  # the API server and its engine
        with pytest.raises(ValueError, match="refuses requests without a key"):
            read_description(address, "")
        assert read_description(address, key).dtype == "float32"
    finally:
        server.terminate()
        assert server.wait(60) == 0


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_trainer_that_ends_in_the_middle_of_a_restart_leaves_no_server(sent, checkpoint, other_checkpoint, tmp_path):
    command = [sys.executable, "-c", RESTARTING, str(checkpoint), str(other_checkpoint), str(tmp_path)]
    trainer = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.getcwd()}, stderr=subprocess.PIPE)
    seen: set[int] = set()
    try:
        while not any(is_serving(pid, other_checkpoint) for pid in seen):
            assert trainer.poll() is None, "it ended before the restart"
            seen |= set(descendants(trainer.pid))
            time.sleep(0.05)
        time.sleep(2)  # into vLLM's start, which takes many more
        seen |= set(descendants(trainer.pid))
        assert trainer.poll() is None
        trainer.send_signal(sent)
        _, said = trainer.communicate(timeout=60)
        if sent == signal.SIGINT:
            assert said.splitlines()[-1] == b"KeyboardInterrupt"
            assert [pid for pid in seen if is_running(pid)] == []  # it has ended them, before itself
        deadline = time.monotonic() + 30
        while any(map(is_running, seen)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert [pid for pid in seen if is_running(pid)] == []
    finally:
        trainer.kill()
        trainer.communicate()


def is_serving(pid: int, folder: Path) -> bool:
    """Returns whether a process is vLLM's server of a directory."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return False
    return "vllm.entrypoints.openai.api_server" in words and words[words.index("--model") + 1] == str(folder)


def test_a_server_that_cannot_start_says_why_and_shows_its_log(checkpoint, tmp_path):
    (tmp_path / "config.json").write_text((checkpoint / "config.json").read_text().replace("Qwen2ForCausalLM", "No"))
    for name in ("tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((checkpoint / name).read_bytes())
    with pytest.raises(ServerError, match="ended before it was ready: .*Error: .*") as failure:
        with ServerProcess(tmp_path, tmp_path / "server.log"):
            pass
    assert str(tmp_path / "server.log") in str(failure.value)
    assert "'No'" in str(failure.value) or "['No']" in str(failure.value)
