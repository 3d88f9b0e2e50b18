"""Clients of this machine's servers ask no proxy; clients of other machines ask the one of the environment."""

import asyncio
import hashlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlagent_jax.run.policy_server import check_address
from rollout.endpoint import ChatEndpoint
from rollout.endpoint.transport import Transport
from rollout.errors import CoderError, ServerError
from rollout.inference.connection import Connection
from rollout.inference.server import free_port, is_healthy
from rollout.runtime.http import is_on_this_machine, proxy_hint
from rollout.task_tools.preparation.fetch import download
from tasks.entry import Download

ELSEWHERE = "http://policy.example:8000"
VARIABLES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
ANSWER = b'{"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}]}'


class Listener:
    """A server that answers every request alike, and keeps the first lines of requests."""

    def __init__(self, answer: bytes, host: str = "127.0.0.1") -> None:
        self.answer, self.asked = answer, list[str]()
        self.socket = socket.create_server((host, 0))
        self.address = f"http://{host}:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                received = b""
                while b"\r\n\r\n" not in received and (chunk := connection.recv(65536)):
                    received += chunk
                self.asked.append(received.partition(b"\r\n")[0].decode())
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(self.answer)}\r\nConnection: close\r\n\r\n"
                connection.sendall(head.encode() + self.answer)


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    """A proxy that every variable names, and that answers instead of the server."""
    listener = Listener(ANSWER)
    for name in VARIABLES:
        monkeypatch.setenv(name, listener.address)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    yield listener
    listener.socket.close()


@pytest.fixture
def server() -> Iterator[Listener]:
    listener = Listener(ANSWER)
    yield listener
    listener.socket.close()


def ask_policy_server(address: str) -> None:
    async def ask() -> None:
        connection = Connection(address, 5.0)
        try:
            await connection.ping()
            await connection.post("/sample", {})
        finally:
            await connection.close()

    asyncio.run(ask())


def ask_endpoint(address: str) -> None:
    async def ask() -> None:
        async with ChatEndpoint(base_url=f"{address}/v1", model="m", error=CoderError, timeout_seconds=5.0) as model:
            assert await model.complete([{"role": "user", "content": "x"}], seed=0) == "hello"

    asyncio.run(ask())


def download_file(address: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Download(f"{address}/table.csv", "table.csv", hashlib.sha256(ANSWER).hexdigest())
        download("toy", file, Path(folder), lambda line: None)


ALL = pytest.mark.parametrize("ask", [is_healthy, check_address, ask_policy_server, ask_endpoint, download_file])


@ALL
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_server_of_this_machine_is_asked_without_the_proxy(proxy, server, ask, host) -> None:
    ask(server.address.replace("127.0.0.1", host))
    assert server.asked and not proxy.asked


@ALL
def test_a_server_elsewhere_is_asked_through_the_proxy(proxy, ask) -> None:
    ask(ELSEWHERE)
    assert proxy.asked and all(f" {ELSEWHERE}/" in line for line in proxy.asked)


def test_the_health_check_of_a_starting_server_fails_at_once(proxy) -> None:
    assert not is_healthy(f"http://127.0.0.1:{free_port()}") and not proxy.asked


@pytest.mark.parametrize("proxy_address", ["socks5://127.0.0.1:9", "socks://127.0.0.1:9", "http://[::1"])
def test_a_proxy_that_cannot_be_used_stops_nothing_here_and_is_named_elsewhere(
    server, proxy_address, monkeypatch
) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, proxy_address)
    ask_policy_server(server.address)
    ask_endpoint(server.address)
    with pytest.raises(ValueError, match=r"policy\.example.*ALL_PROXY=.*no_proxy"):
        Transport(f"{ELSEWHERE}/v1", "expert.{}".format, "", 5.0, 1)


def test_an_answer_that_a_proxy_prevents_says_so(proxy, monkeypatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:secret@127.0.0.1:{free_port()}")
    with pytest.raises(ServerError, match=r"http://\.\.\.@127.0.0.1:\d+; add policy.example to no_proxy") as raised:
        check_address(ELSEWHERE)
    assert "secret" not in str(raised.value)
    monkeypatch.setenv("no_proxy", "policy.example")
    assert proxy_hint(ELSEWHERE) == ""


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8000/health", True),
        ("http://127.8.9.1", True),
        ("http://LOCALHOST:1/v1", True),
        ("http://localhost.:1", True),
        ("http://ollama.localhost/v1", True),
        ("http://[::1]:8000", True),
        ("http://0.0.0.0:8000", True),
        ("http://127.1:8000", True),
        ("http://2130706433/v1", True),
        ("http://ip6-localhost:8000", True),
        ("http://localhost.localdomain:8000", True),
        (f"http://{socket.gethostname()}:8000", True),
        ("http://10.255.255.1:8000", False),
        ("http://api.openai.com/v1", False),
        ("http://127.0.0.1.example.com", False),
        ("http://localhost@example.com", False),
        ("nowhere", False),
        ("http://[half", False),
    ],
)
def test_addresses_of_this_machine_are_recognized(url, expected) -> None:
    assert is_on_this_machine(url) is expected


@pytest.mark.slow
def test_the_processes_of_a_run_find_each_other_without_the_proxy(proxy) -> None:
    program = """
import sys
from mlagent_jax.multihost import distributed
distributed.initialize()
assert distributed.from_main(lambda: 7) == 7
distributed.leave(0)
"""
    address = f"127.0.0.1:{free_port()}"
    settings = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", program]
    environments = [{**os.environ, **settings, "JAX_PROCESS_ID": str(number)} for number in range(2)]
    processes = [subprocess.Popen(command, env=environment) for environment in environments]
    try:
        assert [process.wait(timeout=60) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    assert not proxy.asked
