"""A policy server that dies or is restarted in mid-update: it gets its weights again, and lost requests are repeated.

The supervisor, the processes and the client are real; `stand_in.py` starts in vLLM's place. With the real vLLM:
`tests/integration/test_faults.py`.
"""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rollout.errors import ServerError
from rollout.inference import recovery
from rollout.inference.agreement import Tolerance
from rollout.inference.canary import Canary
from rollout.inference.client import PolicyClient
from rollout.inference.recovery import OwnServer, ServerElsewhere
from rollout.inference.server import ServerOptions, free_port, is_healthy
from rollout.inference.server_process import ServerProcess
from rollout.inference.shared_folder import check_shared
from rollout.types import Completion

T = TypeVar("T")
EXACT = Tolerance(1e-6, 1e-6)
pytestmark = pytest.mark.slow  # each waits for connections that are refused
PROMPTS = [[7, i, 3] for i in range(12)]
STAND_IN = Path(__file__).with_name("stand_in.py")


@pytest.fixture(autouse=True)
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the stand-in where Python looks for vLLM, and return the folder of its orders."""
    package = tmp_path / "path" / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    for folder in (package, package.parent, package.parent.parent):
        (folder / "__init__.py").touch()
    (package / "api_server.py").write_bytes(STAND_IN.read_bytes())
    orders = tmp_path / "orders"
    orders.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    monkeypatch.setenv("VLLM_STAND_IN_FAULTS", str(orders))
    monkeypatch.setattr(recovery, "RESTART_WAITS", (0.0, 0.01, 0.02))
    monkeypatch.setattr(recovery, "PROBE_SECONDS", 0.05)
    return orders


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two checkpoint directories of one shape: the one that servers start on, and an update."""
    made = [tmp_path / "started", tmp_path / "update"]
    for number, folder in enumerate(made):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        save_file({"weight": np.full((4, 4), number, np.float32)}, folder / "model.safetensors")
    return made


def digests(folder: Path) -> dict[str, str]:
    tensors = load_file(folder / "model.safetensors")
    return {name: hashlib.sha256(tensor.tobytes()).hexdigest() for name, tensor in tensors.items()}


async def samples(client: PolicyClient) -> list[list[Completion]]:
    return await asyncio.gather(*(client.sample(prompt, num_samples=2, seed=5) for prompt in PROMPTS))


@pytest.fixture(params=["load", "restart"])
def new_weights(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def process(new_weights: str, folders: list[Path], tmp_path: Path) -> Iterator[ServerProcess]:
    options = ServerOptions(new_weights=new_weights)  # pyright: ignore[reportArgumentType]
    with ServerProcess(folders[0], tmp_path / "server.log", options, start_seconds=30) as process:
        yield process


def run(process: ServerProcess, body: Callable[[PolicyClient], Awaitable[T]]) -> T:
    """Run a coroutine with the client of a run's own server."""
    restarts = process if process.options.new_weights == "restart" else None

    async def connected() -> T:
        client = PolicyClient(
            process.address,
            temperature=1.0,
            max_tokens=8,
            stop_ids=[1],
            restarts=restarts,
            recovery=OwnServer(process, launches=restarts is None),
            key=process.key,
        )
        async with client:
            return await body(client)

    return asyncio.run(connected())


async def update(client: PolicyClient, folder: Path) -> Canary:
    """Give a server weights as version 4, and return the canary that it has them."""
    await client.update_weights(folder, 4, digests(folder))
    canary = Canary(PROMPTS[0], await client.score(PROMPTS[0]), EXACT)
    await client.update_weights(folder, 4, digests(folder), canary)
    return canary


def test_a_server_that_dies_under_requests_gets_its_weights_again_and_they_are_repeated(process, folders, faults):
    async def body(client: PolicyClient) -> None:
        await update(client, folders[1])
        expected = await samples(client)
        (faults / "given").unlink(missing_ok=True)
        for number in (1, 2):  # a weight update in between is not needed for a second one
            (faults / "generate").write_text("1")
            assert await samples(client) == expected
            assert not (faults / "generate").exists() and client.num_recoveries == number
        assert {each.policy_version for completions in expected for each in completions} == {4}
        if process.options.new_weights == "load":
            (given, *_) = map(json.loads, (faults / "given").read_text().splitlines())
            assert given["digests"] == digests(folders[1])
        else:
            assert process.model == folders[1]

    run(process, body)


def test_a_server_that_was_only_verified_is_verified_again(process, folders, faults):
    async def body(client: PolicyClient) -> None:
        expected = await samples(client)
        await client.verify(Canary(PROMPTS[0], await client.score(PROMPTS[0]), EXACT))
        (faults / "generate").write_text("1")
        assert await samples(client) == expected and client.num_recoveries == 1
        content = (folders[0] / "model.safetensors").read_bytes()
        save_file({"weight": np.full((4, 4), 9, np.float32)}, folders[0] / "model.safetensors")
        (faults / "generate").write_text("1")
        with pytest.raises(ServerError, match="does not have the weights that it was given"):
            await samples(client)
        (folders[0] / "model.safetensors").write_bytes(content)

    run(process, body)


def test_a_server_that_dies_of_an_update_gets_the_new_weights(process, folders, faults):
    async def body(client: PolicyClient) -> None:
        canary = await update(client, folders[1])
        await client.update_weights(folders[0], 5, digests(folders[0]))
        fault = "update_weights" if process.options.new_weights == "load" else "start"
        (faults / fault).write_text("1")
        await client.update_weights(folders[1], 6, digests(folders[1]), canary)
        assert not (faults / fault).exists() and (client.version, client.num_recoveries) == (6, 1)
        assert {each.policy_version for completions in await samples(client) for each in completions} == {6}
        assert await client.score(PROMPTS[0]) == canary.logprobs

    run(process, body)


def test_a_server_that_keeps_dying_ends_the_run_with_the_end_of_its_log(process, folders, faults):
    async def body(client: PolicyClient) -> None:
        await update(client, folders[1])
        (faults / "generate").write_text("99")
        with pytest.raises(ServerError, match=r"ended again after 3 restarts without a weight update") as error:
            await samples(client)
        assert "RuntimeError: told to die at generate" in str(error.value) and str(process.log) in str(error.value)
        assert 90 <= int((faults / "generate").read_text()) < 99, "it was started three times, not more"

    run(process, body)


def test_a_server_that_cannot_start_again_ends_the_run(process, folders, faults):
    async def body(client: PolicyClient) -> None:
        await update(client, folders[1])
        (faults / "generate").write_text("1")
        (faults / "start").write_text("99")
        with pytest.raises(ServerError, match=r"after 3 restarts .*told to die at start"):
            await samples(client)
        assert int((faults / "start").read_text()) == 96

    run(process, body)


def test_a_refused_request_restarts_nothing(process, folders, faults):
    async def body(client: PolicyClient) -> None:
        assert process.process is not None
        pid = process.process.pid
        with pytest.raises(ServerError, match="got no answer|was answered"):
            await client.sample(["no token"], num_samples=1, seed=0)  # pyright: ignore[reportArgumentType]
        assert process.process.pid == pid and client.num_recoveries == 0

    run(process, body)


class Elsewhere:
    """A server that somebody else runs on one port."""

    def __init__(self, model: Path) -> None:
        self.model, self.port = model, free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, str(STAND_IN), "--model", str(self.model), "--port", str(self.port)]
        self.process = subprocess.Popen(command)
        while not is_healthy(self.address):
            assert self.process.poll() is None
            time.sleep(0.02)

    def kill(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def elsewhere(folders: list[Path]) -> Iterator[Elsewhere]:
    server = Elsewhere(folders[0])
    server.start()
    yield server
    server.kill()


def run_elsewhere(server: Elsewhere, body: Callable[[PolicyClient], Awaitable[T]], wait_seconds: float = 30.0) -> T:
    async def connected() -> T:
        settings: dict[str, Any] = {"temperature": 1.0, "max_tokens": 8, "stop_ids": [1]}
        waiting = ServerElsewhere(server.address, wait_seconds)
        async with PolicyClient(server.address, recovery=waiting, **settings) as client:
            return await body(client)

    return asyncio.run(connected())


@pytest.mark.parametrize("down", [False, True])
def test_a_server_that_somebody_restarted_gets_the_weights_again(elsewhere, folders, down: bool):
    async def body(client: PolicyClient) -> None:
        await update(client, folders[1])
        expected = await samples(client)
        elsewhere.kill()
        if not down:  # it is back before anybody asks, on the weights that it started with
            elsewhere.start()
            assert await samples(client) == expected
        else:
            asked = asyncio.create_task(samples(client))
            await asyncio.sleep(0.5)
            assert not asked.done()
            await asyncio.to_thread(elsewhere.start)
            assert await asked == expected
        assert client.num_recoveries == 1

    run_elsewhere(elsewhere, body)


def test_a_server_elsewhere_that_does_not_come_back_ends_the_run_in_one_line(elsewhere, folders, monkeypatch):
    monkeypatch.setattr("rollout.inference.connection._RETRYING.stop", lambda state: state.attempt_number >= 2)

    async def body(client: PolicyClient) -> None:
        await update(client, folders[1])
        elsewhere.kill()
        with pytest.raises(ServerError, match="was lost and did not answer within 1 s; start it again") as error:
            await samples(client)
        assert "\n" not in str(error.value)

    run_elsewhere(elsewhere, body, wait_seconds=1.0)
    elsewhere.start()


def test_a_restarted_server_whose_weights_this_run_never_gave_is_one_clear_line(elsewhere, folders):
    async def first(client: PolicyClient) -> None:
        await update(client, folders[1])

    async def second(client: PolicyClient) -> None:
        assert client.version == 4
        elsewhere.kill()
        elsewhere.start()
        with pytest.raises(ServerError, match="was restarted and has other weights; run the same command again"):
            await samples(client)

    run_elsewhere(elsewhere, first)
    run_elsewhere(elsewhere, second)


def test_a_server_that_does_not_see_the_run_directory_is_one_clear_line(elsewhere, faults, tmp_path):
    shared = tmp_path / "run" / "tmp"

    async def body(client: PolicyClient) -> None:
        await check_shared(client.connection, shared)
        (faults / "blind").touch()
        with pytest.raises(ServerError, match=f"does not see {shared}, .*under the same path") as error:
            await check_shared(client.connection, shared)
        assert "\n" not in str(error.value) and list(shared.iterdir()) == []

    run_elsewhere(elsewhere, body)
