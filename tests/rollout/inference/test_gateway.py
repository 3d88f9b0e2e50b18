"""The key in front of vLLM's own endpoints: its real app, with an engine that only records what reaches it."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from rollout.inference.access import KEY_VARIABLE, authorization
from rollout.inference.description import PATH, SIZES, read_description
from rollout.inference.gateway import OPEN, Gateway
from rollout.inference.server import (
    GATEWAY,
    WEIGHT_BACKEND,
    ServerOptions,
    check_access,
    server_command,
    server_environment,
)
from rollout.inference.vllm_package import installed_version

# Builds the app from the command line of a server, sends a request to each of its routes, without and with the key, and
# prints the status of each and the engine's calls.
APP = """
import asyncio, json, os, sys
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser

calls = []
class Engine:
    def __getattr__(self, name):
        async def call(*arguments, **named):
            calls.append(name)
        return call

args = make_arg_parser(FlexibleArgumentParser()).parse_args(json.loads(sys.argv[1]))
app = build_app(args, ("generate",), None)
app.state.engine_client = Engine()
BODIES = {"/update_weights": {"update_info": {}}, "/init_weight_transfer_engine": {"init_info": {}},
          "/collective_rpc": {"method": "f"}, "/update_weight_version": {"new_version": "1"}}

async def ask(method, path, headers):
    body, status = json.dumps(BODIES.get(path, {})).encode(), []
    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}
    async def send(message):
        status.append(message.get("status"))
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
             "raw_path": path.encode(), "query_string": b"", "root_path": "", "scheme": "http", "client": ("t", 1),
             "server": ("t", 80), "headers": [(b"content-type", b"application/json"), *headers]}
    try:
        await app(scope, receive, send)
    except Exception:
        status.append(500)
    return status[0]

def routes(each):
    for route in each:
        path = getattr(route, "path", "")
        for method in sorted(getattr(route, "methods", None) or ()):
            yield method, path
        yield from routes(getattr(getattr(route, "original_router", None), "routes", ()))

async def main():
    found = sorted(set(routes(app.routes)))
    key = [(b"authorization", b"Bearer " + os.environ.get("MLAGENT_SERVER_KEY", "").encode())]
    without = [[*route, await ask(*route, [])] for route in found]
    reached = list(calls)
    verbs = [["POST", path, await ask("POST", path, key)] for path in BODIES]
    print(json.dumps({"without": without, "reached": reached, "verbs": verbs}))

asyncio.run(main())
"""
VERBS = {"/update_weights", "/init_weight_transfer_engine", "/collective_rpc", "/update_weight_version", "/pause"}


def ask_app(key: str, gateway: bool) -> dict[str, list]:
    """Return what vLLM's app does with requests, with the flags and the environment of a server."""
    command = server_command(Path("model"), 1, ServerOptions(data_parallel=2, tensor_parallel=2, kv_cache_mb=16))
    flags = command[command.index("--middleware") + (0 if gateway else 2) :]
    environment = {**server_environment(ServerOptions()), KEY_VARIABLE: key, "VLLM_SERVER_DEV_MODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", APP, json.dumps(flags)], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_vllm_leaves_its_verbs_open_and_the_key_closes_them_all() -> None:
    before, after = ask_app("secret", gateway=False), ask_app("secret", gateway=True)
    assert {path for _, path, status in before["without"] if status == 200} > VERBS
    assert {"update_weights", "collective_rpc", "pause_generation", "reset_prefix_cache"} <= set(before["reached"])
    allowed = {path for _, path, status in after["without"] if status != 401}
    assert allowed == set(OPEN) and len(after["without"]) > 40
    assert set(after["reached"]) <= {"check_health"}
    assert {status for _, _, status in after["verbs"]} == {200}


@pytest.mark.vllm
def test_a_running_server_refuses_requests_without_its_key_and_says_what_it_serves(policy_server) -> None:
    address, key = policy_server.address, policy_server.process.key
    with httpx.Client(base_url=address) as client:
        for path in (
            *sorted(VERBS),
            "/resume",
            "/reset_prefix_cache",
            "/sleep",
            "/v1/completions",
            "/inference/v1/generate",
        ):
            assert client.post(path, json={"method": "f"}).status_code == 401, path
        for path in ("/v1/models", "/weight_info", "/server_info", "/metrics", "/docs", PATH):
            assert client.get(path).status_code == 401, path
        assert [client.get(path).status_code for path in OPEN] == [200, 200]
        assert client.get("/weight_info", headers=authorization(key)).status_code == 200
    with pytest.raises(ValueError, match="refuses the key"):
        read_description(address, "another")
    found = read_description(address, key)
    assert found.differences("float32", 1024, WEIGHT_BACKEND) == []
    assert found.other_sizes(json.loads((policy_server.folder / "config.json").read_text())) == []
    assert found.other_sizes({"hidden_size": 63}) == ["hidden_size is 64, expected 63"]


class App:
    """An app that counts what reaches it, as the engine's configuration describes a server."""

    def __init__(self) -> None:
        hf_config = SimpleNamespace(**dict.fromkeys(SIZES, 8))
        model = SimpleNamespace(dtype="torch.bfloat16", max_model_len=64, hf_config=hf_config)
        parallel = SimpleNamespace(tensor_parallel_size=1, data_parallel_size=2)
        transfer = SimpleNamespace(backend="files")
        config = SimpleNamespace(
            model_config=model, parallel_config=parallel, weight_transfer_config=transfer, lora_config=None
        )
        self.state = SimpleNamespace(vllm_config=config)
        self.reached: list[str] = []

    async def __call__(self, scope, receive, send) -> None:
        self.reached.append(scope.get("path", scope["type"]))


def request(app: App, method: str, path: str, *authorizations: str, kind: str = "http") -> list[dict]:
    """Send a request through the gateway and return the messages that it answers itself."""
    sent: list[dict] = []

    async def send(message) -> None:
        sent.append(message)

    headers = [(b"Authorization", value.encode()) for value in authorizations]
    scope = {"type": kind, "method": method, "path": path, "headers": headers, "app": app}
    asyncio.run(Gateway(app)(scope, None, send))  # type: ignore[arg-type]
    return sent


@pytest.mark.parametrize("given", [(), ("secret",), ("Bearer secre",), ("bearer secret",), ("Bearer secret",) * 2])
def test_only_the_exact_key_opens_the_server(given, monkeypatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    app = App()
    for path in ("/update_weights", "/health/../update_weights", "//health", PATH, "/metrics", "/"):
        assert request(app, "POST", path, *given)[0]["status"] == 401
    assert request(app, "POST", "/health", *given)[0]["status"] == 401
    assert request(app, "GET", "/realtime", *given, kind="websocket")[0]["type"] == "websocket.close"
    assert app.reached == []
    request(app, "GET", "/health", *given)
    request(app, "", "", *given, kind="lifespan")
    request(app, "POST", "/update_weights", "Bearer secret")
    assert app.reached == ["/health", "", "/update_weights"]


def test_the_gateway_says_what_is_served_and_whether_weights_can_be_loaded(monkeypatch) -> None:
    app = App()
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    said = json.loads(request(app, "GET", PATH, "Bearer secret")[1]["body"])
    assert (said["dtype"], said["max_model_len"], said["weight_backend"]) == ("bfloat16", 64, "files")
    assert (said["data_parallel"], said["vllm"]) == (2, installed_version())
    monkeypatch.delenv(KEY_VARIABLE)
    assert json.loads(request(app, "GET", PATH)[1]["body"])["weight_backend"] is None


def test_a_server_for_other_machines_needs_a_key_and_none_by_its_command_line(monkeypatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    check_access("127.0.0.1", [])
    with pytest.raises(ValueError, match=f"--host 0.0.0.0 answers other machines, .* {KEY_VARIABLE}"):
        check_access("0.0.0.0", [])
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    check_access("0.0.0.0", [])
    with pytest.raises(ValueError, match="--api-key shows the key"):
        check_access("127.0.0.1", ["--api-key=secret"])
    assert "secret" not in " ".join(server_command(Path("model"), 1, ServerOptions()))


def test_the_endpoints_for_weights_exist_only_with_a_key(monkeypatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert server_environment(ServerOptions())["VLLM_SERVER_DEV_MODE"] == "0"
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    environment = server_environment(ServerOptions())
    assert (environment["VLLM_SERVER_DEV_MODE"], environment[KEY_VARIABLE]) == ("1", "secret")
    module, name = GATEWAY.rsplit(".", 1)
    assert (module, name) == (Gateway.__module__, Gateway.__name__) and os.environ[KEY_VARIABLE] == "secret"
