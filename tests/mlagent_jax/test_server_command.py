"""`mlagent server --config`: a run's server, which waits for the policy and is compared with the run's settings.

vLLM itself is a stand-in that answers as the gateway of a real server does (`tests/rollout/inference/test_gateway.py`).
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import ConfigError, Server, Trainer
from mlagent_jax.gpus.assignment import assign
from mlagent_jax.gpus.visible import Gpu
from mlagent_jax.run.policy_server import PolicyServer, check_server, require_expected, server_options
from mlagent_jax.server import HELP, main
from rollout.errors import ServerError
from rollout.inference.access import KEY_VARIABLE
from rollout.inference.client import PolicyClient
from rollout.inference.description import PATH, ServerDescription, read_description
from rollout.inference.server import WEIGHT_BACKEND, free_port, is_healthy
from rollout.inference.vllm_package import installed_version, is_supported
from rollout.storage.digests import write_digests
from tasks.units import GIB

from ..conftest import eventually

KEY = "a-key-of-this-test"
DESCRIPTION = ServerDescription(installed_version() or "", "float32", 1280, {"vocab_size": 8}, WEIGHT_BACKEND, 1, 1)
# Writes its command line into the model's folder, then answers its health.
VLLM = """
import http.server, json, os, sys
flags = dict(zip(sys.argv, sys.argv[1:]))
with open(flags["--model"] + "/flags.part", "w") as report:
    json.dump([flags, os.environ["MLAGENT_SERVER_KEY"], os.environ.get("CUDA_VISIBLE_DEVICES")], report)
os.replace(report.name, flags["--model"] + "/flags.json")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer((flags["--host"], int(flags["--port"])), Handler).serve_forever()
"""


@contextmanager
def serving(description: dict | None, key: str = KEY) -> Iterator[str]:
    """Yield the address of a healthy server that describes itself to requests with the key."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path == "/health" or description is not None
            refused = self.path != "/health" and self.headers.get("Authorization") != f"Bearer {key}"
            self.send_response(401 if refused else 200 if known else 404)
            self.end_headers()
            if self.path == PATH:
                self.wfile.write(json.dumps(description or {}).encode())

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def vllm(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH with a stand-in for vLLM."""
    folder = tmp_path / "packages" / "vllm" / "entrypoints" / "openai"
    folder.mkdir(parents=True)
    for package in (folder, folder.parent, folder.parent.parent):
        (package / "__init__.py").touch()
    (folder / "api_server.py").write_text(VLLM)
    return tmp_path / "packages"


def test_a_server_waits_for_a_policy_from_scratch_and_then_serves_it(tmp_path: Path, vllm: Path, monkeypatch) -> None:
    run_dir, port = tmp_path / "run", free_port()
    settings = [f"run_dir={run_dir}", "server.max_model_len=1280", "server.gpus=[2]", "server.memory_fraction=0.5"]
    environment = {**os.environ, "PYTHONPATH": f"{vllm}:{os.getcwd()}", KEY_VARIABLE: KEY}
    command = [sys.executable, "-m", "mlagent_jax.server", *settings, "--port", str(port)]
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    server = load_config(None, [*settings, f"server.address=http://127.0.0.1:{port}"]).server
    assert server.address is not None
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and f"waiting for {run_dir}/sft/model" in process.stdout.readline()
        assert eventually(lambda: answers(server), 60)
        check_server(server)  # what a run asks at its start
        assert not is_healthy(server.address)
        assert read_description(server.address, KEY).waits_for == f"{run_dir}/sft/model"
        with pytest.raises(ValueError, match="refuses requests without a key; set the environment variable"):
            check_server(replace(server, api_key_env="ANOTHER"))
        with pytest.raises(ConfigError, match="dtype is float32, expected server.dtype=bfloat16"):
            check_server(replace(server, dtype="bfloat16"))
        model = run_dir / "sft" / "model"
        model.mkdir(parents=True)
        (model / "config.json").write_text("{}")
        (model / "model.safetensors").write_bytes(b"")
        assert not (model / "flags.json").exists()
        write_digests(model)  # written last
        assert eventually((model / "flags.json").exists, 60)
        assert eventually(lambda: is_healthy(f"http://127.0.0.1:{port}"), 60)
        assert f"serving {model} at" in process.stdout.readline()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        process.stdout and process.stdout.close()
    flags, key, gpus = json.loads((model / "flags.json").read_text())
    assert (flags["--model"], flags["--dtype"], flags["--max-model-len"]) == (str(model), "float32", "1280")
    assert (flags["--kv-cache-memory-bytes"], flags["--gpu-memory-utilization"]) == (str(256 * 2**20), "0.5")
    assert (key, gpus) == (KEY, "2") and KEY not in flags.values()


def test_a_runs_own_server_gets_its_gpus_its_share_of_the_memory_and_a_key_of_its_own(
    tmp_path: Path, vllm: Path, monkeypatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(vllm))
    monkeypatch.setenv(KEY_VARIABLE, "of another server")
    for name, content in (("config.json", "{}"), ("model.safetensors", "")):
        (tmp_path / name).write_text(content)
    gpus = [Gpu(0, "GPU-0", 80 * GIB, 0, "Card")]
    shared = assign(gpus, Trainer(), Server(), 1)
    assert shared.is_shared
    with PolicyServer(load_config().server, tmp_path / "server.log", tmp_path, shared) as server:
        server.launch(tmp_path)
        assert eventually((tmp_path / "flags.json").exists, 60)
        flags, key, visible = json.loads((tmp_path / "flags.json").read_text())
        assert (visible, flags["--gpu-memory-utilization"], key) == ("0", "0.3", server.key)
    assert key != "of another server" and len(key) > 30


def answers(server: Server) -> bool:
    try:
        check_server(server)
    except ServerError:
        return False
    return True


def test_a_run_waits_for_a_server_that_is_starting(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    with serving(DESCRIPTION.to_json()) as address:
        server = PolicyServer(load_config(None, [f"server.address={address}"]).server, tmp_path / "log", tmp_path)
        assert server.address() == address and server.key == KEY
    gone = load_config(None, [f"server.address={address}", "server.start_timeout_seconds=0.2"]).server
    with pytest.raises(ServerError, match="no policy server answers at server.address=.*mlagent server --config"):
        PolicyServer(gone, tmp_path / "log", tmp_path).address()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dtype": "bfloat16"}, "dtype is bfloat16, expected server.dtype=float32"),
        ({"max_model_len": 1024}, "context is 1024 tokens, expected server.max_model_len=1280"),
        ({"weight_backend": None}, "weight updates are off, expected safetensors_directory"),
        ({"vllm": "0.33.0"}, "vLLM is 0.33.0, expected 0.32 or later, before 0.33"),
        ({"sizes": {"vocab_size": 9}}, "vocab_size is 9, expected 8"),
        ({"dtype": "float16", "max_model_len": 8}, "dtype is float16, .*; context is 8 tokens"),
        ({"max_adapter_rank": 16}, "it takes adapters, expected whole weights .server.weight_transfer."),
    ],
)
def test_a_server_that_differs_is_refused_with_what_differs_and_what_to_do(change, said, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"vocab_size": 8}')
    settings = load_config().server
    require_expected(settings, DESCRIPTION, "http://there", tmp_path)
    require_expected(
        settings, replace(DESCRIPTION, max_model_len=4096), "http://there", tmp_path
    )  # a longer one will do
    remedy = "; start it with `mlagent server --config FILE` and the settings of this run, or change these keys"
    with pytest.raises(ConfigError, match=f"server at http://there is not the one .*{said}.*{re.escape(remedy)}"):
        require_expected(settings, replace(DESCRIPTION, **change), "http://there", tmp_path)


def test_a_server_that_does_not_take_the_runs_adapters_is_refused() -> None:
    settings = load_config().server
    for has, said in ((0, "adapters are none at most"), (16, "adapters are rank 16 at most")):
        with pytest.raises(ConfigError, match=f"{said}, expected adapter.rank=32"):
            require_expected(settings, replace(DESCRIPTION, max_adapter_rank=has), "http://there", max_adapter_rank=32)
    require_expected(settings, replace(DESCRIPTION, max_adapter_rank=32), "http://there", max_adapter_rank=32)


def test_restarted_servers_and_any_dtype_need_no_backend_and_no_type() -> None:
    settings = replace(load_config().server, new_weights="restart", dtype="auto")
    require_expected(settings, replace(DESCRIPTION, weight_backend=None, dtype="float16"), "http://there")


def test_what_is_no_server_of_this_project_is_said(monkeypatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    with serving(None) as address, pytest.raises(ValueError, match=f"{address} does not say what it serves .HTTP 404"):
        check_server(Server(address=address))
    newer = {**DESCRIPTION.to_json(), "unknown": 1}
    with serving(newer) as address, pytest.raises(ValueError, match="does not say what it serves"):
        check_server(Server(address=address))


def test_a_client_with_another_key_is_refused_with_the_key_named() -> None:
    async def connect(address: str) -> None:
        async with PolicyClient(address, temperature=1.0, max_tokens=1, stop_ids=[], key="wrong"):
            pass

    with serving(DESCRIPTION.to_json()) as address, pytest.raises(ValueError, match="401.*give its key to both"):
        asyncio.run(connect(address))


def test_the_command_refuses_what_cannot_work_in_one_line(capsys, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert main(["--help"]) == 0 and capsys.readouterr().out == HELP.format(prog="python -m mlagent_jax.server") + "\n"
    for arguments, said in (
        (["server.dtype=int"], "server.dtype"),
        ([f"run_dir={tmp_path}", "--host", "0.0.0.0"], f"set the environment variable {KEY_VARIABLE}"),
        ([f"run_dir={tmp_path}", "server.new_weights=restart"], "set server.new_weights=load"),
        ([f"run_dir={tmp_path}", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--model", "nowhere"], "model directory nowhere does not exist"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1, error


def test_options_of_a_server_follow_the_section(tmp_path: Path) -> None:
    settings = load_config(None, ["server.tensor_parallel=2", "server.data_parallel=3", "server.kv_cache_mb=5"]).server
    options = server_options(settings, "1,2", 0.3)
    assert (options.tensor_parallel, options.data_parallel, options.kv_cache_mb) == (2, 3, 5)
    assert (options.gpus, options.memory_fraction) == ("1,2", 0.3)
    assert server_options(replace(settings, memory_fraction=0.7), "").memory_fraction == 0.7
    assert Server().api_key_env == KEY_VARIABLE


@pytest.mark.parametrize(
    ("version", "expected"), [("0.32.0", True), ("0.32.7+cpu", True), ("0.31.9", False), ("1.0", False)]
)
def test_only_versions_with_the_endpoints_are_supported(version: str, expected: bool) -> None:
    assert is_supported(version) is expected
