import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from rollout.errors import ServerError
from rollout.inference.server import (
    ServerOptions,
    check_start,
    free_port,
    is_healthy,
    main,
    server_command,
    server_environment,
)
from rollout.inference.server_process import ServerProcess
from rollout.inference.supervisor import LONGEST_ROOT, TEMP_PREFIX, is_running, remove_stale_folders, temporary_root

from ...conftest import eventually

# A stand-in for vLLM: it starts a process of its own, leaves a file in its temporary folder and two in shared
# memory, says who it is, and ends on SIGTERM only if told to.
STUBBORN = """
import mmap, multiprocessing, os, signal, subprocess, sys, tempfile, time
if sys.argv[2] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
handle, left = tempfile.mkstemp()
shared = f"/dev/shm/psm_mlagent_test_{os.getpid()}"
with open(shared, "wb+") as file:
    file.truncate(64)
    kept = mmap.mmap(file.fileno(), 64)
semaphore = multiprocessing.get_context("spawn").Lock()
named = "/dev/shm/sem." + semaphore._semlock.name.removeprefix("/")
with open(sys.argv[1] + ".part", "w") as report:
    report.write(f"{os.getpid()} {grandchild.pid} {tempfile.gettempdir()} {shared} {named}")
os.replace(sys.argv[1] + ".part", sys.argv[1])
time.sleep(600)
"""
# A supervisor of that, which ends with its own parent or when asked.
SUPERVISOR = """
import os, signal, sys, time
from rollout.inference.supervisor import SupervisedProcess
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
parent = int(sys.argv[3])
with SupervisedProcess([sys.executable, "-c", os.environ["STUBBORN"], *sys.argv[1:3]], os.environ) as group:
    while os.getppid() == parent and not asked:
        time.sleep(0.05)
"""
TRAINER = """
import os, subprocess, sys, time
command = [sys.executable, "-c", os.environ["SUPERVISOR"], *sys.argv[1:], str(os.getpid())]
subprocess.Popen(command, start_new_session=True)
time.sleep(600)
"""


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


class Family:
    """A trainer, its supervisor, the supervised process and its child, all real."""

    def __init__(self, folder: Path, manners: str):
        report = folder / "report"
        environment = {**os.environ, "STUBBORN": STUBBORN, "SUPERVISOR": SUPERVISOR, "PYTHONPATH": os.getcwd()}
        command = [sys.executable, "-c", TRAINER, str(report), manners]
        with (folder / "errors").open("w") as errors:  # the resource tracker's complaints
            self.trainer = subprocess.Popen(command, env=environment, stderr=errors)
        assert eventually(report.exists)
        child, grandchild, *files = report.read_text().split()
        self.processes = [int(child), int(grandchild)]
        self.files = [Path(name) for name in files]
        self.supervisor = parent_of(int(child))
        assert self.supervisor != self.trainer.pid
        assert all(path.exists() for path in self.files)

    def is_gone(self) -> bool:
        pids = [*self.processes, self.supervisor]
        return not any(map(is_running, pids)) and not any(path.exists() for path in self.files)

    def clean_up(self) -> None:
        self.trainer.kill()
        self.trainer.wait()
        for pid in [self.supervisor, *self.processes]:
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(params=["polite", "deaf"])
def family(request, tmp_path) -> Iterator[Family]:
    family = Family(tmp_path, request.param)
    yield family
    family.clean_up()


def test_a_killed_trainer_leaves_no_process_and_no_file(family):
    family.trainer.kill()
    family.trainer.wait()
    assert eventually(family.is_gone)


def test_a_supervisor_that_is_asked_to_end_leaves_no_process_and_no_file(family):
    os.kill(family.supervisor, signal.SIGTERM)
    assert eventually(family.is_gone)


@pytest.mark.parametrize("family", ["polite"], indirect=True)
def test_a_killed_supervisor_takes_its_server_along_and_the_next_one_cleans_up(family):
    os.kill(family.supervisor, signal.SIGKILL)
    assert eventually(lambda: not is_running(family.processes[0]))
    remove_stale_folders()
    assert not family.files[0].exists()
    for path in family.files[1:]:
        path.unlink(missing_ok=True)


def test_folders_of_living_supervisors_are_left_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mine = Path(tempfile.mkdtemp(prefix=f"{TEMP_PREFIX}{os.getpid()}-"))
    foreign = Path(tempfile.mkdtemp(prefix=f"{TEMP_PREFIX}notes-"))
    stale = Path(tempfile.mkdtemp(prefix=f"{TEMP_PREFIX}{2**22 + 1}-"))
    remove_stale_folders()
    assert mine.exists() and foreign.exists() and not stale.exists()


def test_a_missing_or_empty_model_directory_is_said(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        check_start(tmp_path / "nowhere", 0)
    with pytest.raises(ValueError, match="is not a model directory; expected config.json"):
        check_start(tmp_path, 0)


@pytest.mark.parametrize("length", [LONGEST_ROOT, LONGEST_ROOT + 1, 200])
def test_sockets_have_room_whatever_the_temporary_folder_is_called(length, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", f"/tmp/{'x' * (length - 5)}")
    name = f"{TEMP_PREFIX}{2**22}-xxxxxxxx"  # no process has a longer number
    with socket.socket(socket.AF_UNIX) as longest, pytest.raises(FileNotFoundError):  # too long would be an OSError
        longest.bind(str(temporary_root() / name / str(uuid.uuid4())))
    with socket.socket(socket.AF_UNIX) as longest, pytest.raises(OSError, match="too long"):
        longest.bind(f"/tmp/{'x' * (LONGEST_ROOT - 3)}/{name}/{uuid.uuid4()}")


@pytest.fixture
def model(tmp_path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    return tmp_path


def test_a_port_in_use_is_said_before_anything_starts(model):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"cannot serve on port {port} of 127.0.0.1"):
            ServerProcess(model, model / "server.log", port=port).launch()
    assert not (model / "server.log").exists()


def test_the_command_line_says_what_is_wrong_in_one_line(capsys):
    assert main(["--model", "nowhere"]) == 2
    said = capsys.readouterr()
    assert said.err == "error: model directory nowhere does not exist; expected a Hugging Face checkpoint directory\n"
    assert said.out == ""


def test_last_words_are_the_first_error_and_the_end_of_the_log(tmp_path):
    server = ServerProcess(tmp_path, tmp_path / "server.log")
    assert "no error in its log" in server.log_excerpt()
    lines = ["WARNING low", "(A pid=1) WARNING limits can cause errors like `OSError: [Errno 24]`", "(E pid=2) ERROR"]
    lines += ["(E pid=2) ERROR ValueError: no such layer", *map(str, range(20)), "RuntimeError: see above"]
    server.log.write_text("\n".join(lines))
    said = server.log_excerpt().splitlines()
    assert said[0] == f"ValueError: no such layer (log: {server.log})"
    assert said[1:] == lines[-12:]


def test_a_later_start_leaves_the_log_of_those_before_and_looks_for_errors_in_its_own(tmp_path, model, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text("raise KeyError('not today')")
    server = ServerProcess(model, tmp_path / "server.log", start_seconds=30)
    server.launch()
    with pytest.raises(ServerError, match="KeyError: 'not today'"):
        server.wait_ready()
    before = server.log.read_text()
    (tmp_path / "vllm" / "__init__.py").write_text("raise LookupError('nor tomorrow')")
    server.launch(model)
    with pytest.raises(ServerError, match="^the policy server ended before it was ready: LookupError"):
        server.wait_ready()
    server.stop()
    assert server.log.read_text().startswith(before)


def test_further_flags_of_a_process_reach_vllm(tmp_path, model, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "vllm" / "entrypoints" / "openai").mkdir(parents=True)
    for package in ("vllm", "vllm/entrypoints", "vllm/entrypoints/openai"):
        (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / "vllm/entrypoints/openai/api_server.py").write_text("import sys\nraise KeyError(sys.argv[-2:])\n")
    flags = ("--tool-call-parser", "hermes")
    server = ServerProcess(model, tmp_path / "server.log", start_seconds=30, flags=flags)
    server.launch()
    with pytest.raises(ServerError, match=r"KeyError: \['--tool-call-parser', 'hermes'\]"):
        server.wait_ready()
    server.stop()


def test_options_and_further_flags_reach_vllm(model):
    options = ServerOptions(dtype="bfloat16", max_model_len=9000, kv_cache_mb=3, seed=5)
    command = server_command(model, 1234, options, ["--tensor-parallel-size", "2"])
    flags = dict(zip(command, command[1:], strict=False))
    assert (flags["--dtype"], flags["--max-model-len"], flags["--seed"]) == ("bfloat16", "9000", "5")
    assert flags["--kv-cache-memory-bytes"] == str(3 * 2**20)
    assert flags["--port"] == "1234"
    assert command[-2:] == ["--tensor-parallel-size", "2"]
    uncapped = server_command(model, 1234, ServerOptions(kv_cache_mb=0))
    assert "--kv-cache-memory-bytes" not in uncapped


def test_a_share_of_the_memory_and_the_devices_reach_vllm_also_beside_a_size_of_the_cache(model):
    for kv_cache_mb in (0, 64):
        options = ServerOptions(kv_cache_mb=kv_cache_mb, memory_fraction=0.25, tensor_parallel=2, data_parallel=4)
        command = server_command(model, 1234, options)
        flags = dict(zip(command, command[1:], strict=False))
        assert flags["--gpu-memory-utilization"] == "0.25"
        assert (flags["--tensor-parallel-size"], flags["--data-parallel-size"]) == ("2", "4")
    assert not {"--tensor-parallel-size", "--data-parallel-size"} & set(server_command(model, 1, ServerOptions()))


def test_replicas_on_a_cpu_have_an_engine_process_each(model):
    for count, backend, engines in ((1, "uni", "0"), (2, "mp", "1")):
        options = ServerOptions(data_parallel=count)
        command = server_command(model, 1, options)
        assert command[command.index("--distributed-executor-backend") + 1] == backend
        assert server_environment(options)["VLLM_ENABLE_V1_MULTIPROCESSING"] == engines


def test_the_server_sees_its_own_gpus_and_not_those_of_the_trainer(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert server_environment(ServerOptions())["CUDA_VISIBLE_DEVICES"] == "0"
    environment = server_environment(ServerOptions(gpus="2,3"))
    assert (environment["CUDA_VISIBLE_DEVICES"], environment["CUDA_DEVICE_ORDER"]) == ("2,3", "PCI_BUS_ID")


# A stand-in for vLLM that starts a worker.
WITH_WORKER = """
import os, subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open(sys.argv[sys.argv.index("--model") + 1] + "/pids.part", "w") as report:
    report.write(f"{os.getpid()} {worker.pid}")
os.replace(report.name, report.name.removesuffix(".part"))
time.sleep(600)
"""


def test_no_secret_of_the_user_reaches_the_server_or_its_workers(tmp_path, model, monkeypatch):
    for name in ("OPENAI_API_KEY", "HF_TOKEN", "AWS_SESSION_TOKEN", "VLLM_API_KEY", "MY_PLAN", "https_proxy"):
        monkeypatch.setenv(name, "planted-secret")
    monkeypatch.setenv("NCCL_DEBUG", "WARN")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    folder = tmp_path / "vllm" / "entrypoints" / "openai"
    folder.mkdir(parents=True)
    for package in (folder, folder.parent, folder.parent.parent):
        (package / "__init__.py").touch()
    (folder / "api_server.py").write_text(WITH_WORKER)
    process = ServerProcess(model, tmp_path / "server.log")
    process.launch()
    try:
        assert eventually((model / "pids").exists)
        assert process.process is not None
        pids = [process.process.pid, *map(int, (model / "pids").read_text().split())]
        environments = [Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in pids]
        commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids]
    finally:
        process.stop()
    for environment, command in zip(environments, commands, strict=True):
        assert not [entry for entry in environment if b"planted-secret" in entry]
        assert f"MLAGENT_SERVER_KEY={process.key}".encode() in environment and b"NCCL_DEBUG=WARN" in environment
        assert any(entry.startswith(b"PATH=") for entry in environment)
        assert process.key.encode() not in command
    assert ServerProcess(model, tmp_path / "server.log").key != process.key


def test_grammars_are_compiled_by_llguidance_unless_the_user_says_otherwise(model):
    flag = "--structured-outputs-config"
    command = server_command(model, 1234, ServerOptions())
    assert json.loads(command[command.index(flag) + 1]) == {"backend": "guidance"}
    for given in ([flag, '{"backend": "xgrammar"}'], [f"{flag}.backend", "xgrammar"]):
        command = server_command(model, 1234, ServerOptions(), given)
        assert [each for each in command if each.startswith(flag)] == given[:1]


def test_head_computes_in_float32_unless_the_server_does_anyway_or_the_user_says_otherwise(model):
    flag = "--hf-overrides"
    for dtype in ("bfloat16", "float16", "auto"):
        command = server_command(model, 1234, ServerOptions(dtype=dtype))
        assert json.loads(command[command.index(flag) + 1]) == {"head_dtype": "float32"}
    assert flag not in server_command(model, 1234, ServerOptions(dtype="float32"))
    for given in ([flag, "{}"], [f"{flag}.head_dtype", "model"]):
        command = server_command(model, 1234, ServerOptions(dtype="bfloat16"), given)
        assert [each for each in command if each.startswith(flag)] == given[:1]


def test_a_server_that_is_restarted_for_new_weights_gets_none_of_the_verbs_flags(model, capsys):
    command = server_command(model, 1234, ServerOptions(new_weights="restart"))
    verbs = {"--worker-extension-cls", "--weight-transfer-config"}
    assert not verbs & set(command) and verbs < set(server_command(model, 1234, ServerOptions()))
    with pytest.raises(SystemExit):
        main(["--model", str(model), "--new-weights", "reload"])
    assert "invalid choice: 'reload'" in capsys.readouterr().err


def test_nothing_is_healthy_where_nothing_listens():
    assert not is_healthy(f"http://127.0.0.1:{free_port()}")
    assert not is_healthy("nonsense")


def test_the_worker_extension_and_the_server_agree_on_their_names():
    """Read as text: only vLLM's own processes import the extension."""
    source = Path("rollout/inference/worker_extension.py").read_text()
    command = server_command(Path("model"), 1, ServerOptions())
    backend = json.loads(command[command.index("--weight-transfer-config") + 1])["backend"]
    module, name = command[command.index("--worker-extension-cls") + 1].rsplit(".", 1)
    assert f'BACKEND = "{backend}"' in source
    assert f"class {name}:" in source
    assert module == "rollout.inference.worker_extension"
