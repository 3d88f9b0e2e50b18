"""The policy server shared by all tests marked `vllm`, its checkpoints, and a chat server with faults."""

import asyncio
import json
import math
import re
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from rollout.inference.access import KEY_VARIABLE
from rollout.inference.client import PolicyClient
from rollout.inference.server import ServerOptions
from rollout.inference.server_process import ServerProcess
from rollout.sampling.experience import Experience
from rollout.tokenizer.chat import ChatTokenizer, train_tokenizer
from rollout.types import Snapshot, Step, Trajectory
from tasks.feedback import Feedback, Outcome
from tasks.naming import WORDS, Names
from tasks.system_text import system_text

settings.register_profile("repeatable", deadline=None, derandomize=True)  # no failures due to load or chance
settings.load_profile("repeatable")

T = TypeVar("T")
VOCAB_SIZE = 512
MAX_MODEL_LEN = 1024
SYSTEM = system_text("brief", 100)
NUM_TOKENS = 64  # vocabulary of made-up experiences


def write_checkpoint(folder: Path, seed: int) -> Path:
    """Write a random Qwen2 checkpoint of two layers with a tied head, and a tokenizer trained on the system prompt."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = train_tokenizer(
        [SYSTEM, Path(__file__).read_text(), Path(asyncio.__file__).read_text()] * 3, folder, 512
    )
    config = Qwen2Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,  # of 32 dimensions, the smallest that vLLM's CPU attention supports
        num_key_value_heads=1,
        max_position_embeddings=MAX_MODEL_LEN,
        tie_word_embeddings=True,
        initializer_range=0.1,  # far from uniform, so that wrong weights are noticed
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.pad_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        Qwen2ForCausalLM(config).float().save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class ServedPolicy:
    """The shared server and its checkpoints.

    Attributes:
        address: The server's address.
        folder: The checkpoint that it was started on.
        other: A checkpoint of the same shape with other weights.
        process: The running server.
    """

    address: str
    folder: Path
    other: Path
    process: ServerProcess

    def tokenizer(self) -> ChatTokenizer:
        """Return the tokenizer of both checkpoints."""
        return ChatTokenizer(self.folder, SYSTEM)

    def run(self, body: Callable[[PolicyClient], Awaitable[T]], **settings: object) -> T:
        """Run a coroutine with a connected client and return its result."""
        stop_ids = [self.tokenizer().eos_id]
        defaults = {"temperature": 1.0, "max_tokens": 16, "stop_ids": stop_ids, "key": self.process.key}

        async def connected() -> T:
            async with PolicyClient(self.address, **{**defaults, **settings}) as client:  # pyright: ignore
                return await body(client)

        return asyncio.run(connected())


def eventually(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Return whether a condition becomes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


# Files whose tests start policy servers, or look for files that one has left on this machine.
SERVERS = re.compile(
    r"tests/integration/(?!test_killed_fine_tuning|test_two_processes\.py)|tests/mlagent_jax/test_weight_restart|"
    "tests/mlagent_jax/model/test_planted_faults|tests/mlagent_jax/doctor/|tests/rollout/inference/|"
    "tests/benchmarks/test_device"
)


class ByFile(LoadScopeScheduling):
    """A scheduler that gives all tests of a file to one worker, and all tests of servers to one worker."""

    def _split_scope(self, nodeid: str) -> str:
        return "servers" if SERVERS.match(nodeid) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    return ByFile(config, log)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint directory that vLLM can serve."""
    return write_checkpoint(tmp_path_factory.mktemp("policy"), seed=0)


@pytest.fixture(scope="session")
def other_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint directory of the same shape with other weights."""
    return write_checkpoint(tmp_path_factory.mktemp("other_policy"), seed=1)


@pytest.fixture(scope="session")
def _policy_server(
    checkpoint: Path, other_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServedPolicy]:
    log = tmp_path_factory.mktemp("server") / "server.log"
    options = ServerOptions(max_model_len=MAX_MODEL_LEN, kv_cache_mb=64, num_threads=1)
    with ServerProcess(checkpoint, log, options) as process:
        yield ServedPolicy(process.address, checkpoint, other_checkpoint, process)


@pytest.fixture
def policy_server(_policy_server: ServedPolicy, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedPolicy]:
    """A running policy server, whose initial weights are restored after each test; runs find its key."""
    monkeypatch.setenv(KEY_VARIABLE, _policy_server.process.key)
    yield _policy_server

    async def restore(client: PolicyClient) -> None:
        if client.version != 0:
            await client.update_weights(_policy_server.folder, 0)

    _policy_server.run(restore)


def one_action_trajectories(count: int) -> list[Trajectory]:
    """Return trajectories of one action each, which differ in a word of their problem."""
    snapshot, feedback = Snapshot({}, 0.0, None, "", 0.0), Feedback(Outcome.EDIT, "fine", None)
    return [
        Trajectory(
            trajectory_id=word,
            task="toy",
            seed=0,
            names=Names("project", "train.csv", "test.csv", "train.py"),
            problem=f"Predict the {word}.",
            ideas=(),
            steps=(Step(f"Thought: the {word}.", "Final Answer", {}, feedback, snapshot, snapshot, 0.0),),
            end="final_answer",
        )
        for word in WORDS[:count]
    ]


def _make_experience(
    prompt: Sequence[int], response: Sequence[int], reward: float | None = 0.0, *, trajectory_id: str = "one"
) -> Experience:
    """Return a response to a prompt, with the sampler's log-probabilities of a uniform policy."""
    return Experience(
        trajectory_id=trajectory_id,
        depth=len(prompt),
        task="toy",
        sample=0,
        prompt_ids=tuple(prompt),
        response_ids=tuple(response),
        logprobs=(-math.log(NUM_TOKENS),) * len(response),
        policy_version=0,
        finish_reason="stop",
        outcome=Outcome.EDIT,
        metric=None,
        reward=reward,
        seconds=0.0,
        action="Edit Script",
        instruction="",
        repeated=False,
        grounding={},
    )


@pytest.fixture(scope="session")
def make_experience() -> Callable[..., Experience]:
    return _make_experience


@dataclass
class Asked:
    """One request to the chat server, its fault, and the usage that would be billed."""

    at: float  # of the monotonic clock
    headers: dict[str, str]
    body: dict[str, Any]
    fault: str
    connection: int  # the client's port
    usage: dict[str, Any]


@dataclass
class ChatServer:
    """A local HTTP server for chat completions that can inject faults.

    Attributes:
        answer: The text, or the whole reply as a dict, to a request's body.
        fault: The fault for a body and the number of earlier requests with that body: `` for none, `429 1` (status and
            Retry-After), `500`, `hang`, `hang up`, `half` (a body cut off), `torn` (JSON cut off), `html`,
            `no choices`, or wrong token counts: `no usage`, `negative`, `absurd`, `text`.
        seconds: The duration of an answer.
        hang_seconds: The duration of an answer with the fault `hang`.
        asked: The requests in the order of their arrival.
        under_way: The number of requests in flight.
        peak: The largest number of concurrent requests.
        address: The client's base_url.
    """

    answer: Callable[[dict[str, Any]], str | dict[str, Any]]
    fault: Callable[[dict[str, Any], int], str] = lambda body, number: ""
    seconds: float = 0.0
    hang_seconds: float = 1.0
    asked: list[Asked] = field(default_factory=list)
    under_way: int = 0
    peak: int = 0
    address: str = ""

    def answered(self) -> list[Asked]:
        """Return the requests that got a complete answer."""
        spoiled = ("4", "5", "hang", "half", "torn", "html", "no choices")
        return [one for one in self.asked if not one.fault.startswith(spoiled)]

    def tokens(self) -> int:
        """Return the tokens of all complete answers."""
        return sum(one.usage["prompt_tokens"] + one.usage["completion_tokens"] for one in self.answered())

    @contextmanager
    def serving(self) -> Iterator["ChatServer"]:
        """Yield the server while it listens."""
        stub, lock = self, threading.Lock()
        prefixes: set[str] = set()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # keeps connections open

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                reply = stub.answer(body)
                text = reply if isinstance(reply, str) else ""
                with lock:
                    number = sum(one.body == body for one in stub.asked)
                    fault, usage = stub.fault(body, number), _usage(body["messages"], text, prefixes)
                    port = self.client_address[1]
                    stub.asked.append(Asked(time.monotonic(), dict(self.headers), body, fault, port, usage))
                    stub.under_way += 1
                    stub.peak = max(stub.peak, stub.under_way)
                time.sleep(stub.hang_seconds if fault == "hang" else stub.seconds)
                with lock:
                    stub.under_way -= 1
                if isinstance(reply, str):
                    end = "length" if len(text) // 4 > body["max_tokens"] else "stop"
                    message = {"role": "assistant", "content": text}
                    reply = {"choices": [{"message": message, "finish_reason": end}], "usage": usage}
                self._reply(fault, reply)

            def _reply(self, fault: str, reply: dict[str, Any]) -> None:
                told = reply.get("usage", {})
                wrong = {
                    "no choices": {**reply, "choices": []},
                    "no usage": {**reply, "usage": None},
                    "negative": {**reply, "usage": {**told, "prompt_tokens": -5}},
                    "absurd": {**reply, "usage": {**told, "completion_tokens": 10**15}},
                    "text": {**reply, "usage": {**told, "prompt_tokens": "many"}},
                }
                if fault == "hang up":
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
                whole = json.dumps(wrong.get(fault, reply)).encode()
                sent = {"html": b"<html>Bad day</html>", "torn": whole[: len(whole) // 2]}.get(fault, whole)
                status, _, pause = fault.partition(" ") if fault[:1].isdigit() else ("200", "", "")
                self.send_response(int(status))
                self.send_header("Content-Length", str(len(sent)))
                if pause:
                    self.send_header("Retry-After", pause)
                try:
                    self.end_headers()
                    self.wfile.write(sent[: len(sent) // 2] if fault == "half" else sent)
                except OSError:
                    fault = "half"  # the client has gone
                self.close_connection = fault == "half"

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                if not isinstance(sys.exc_info()[1], OSError):  # a client that has gone, or was killed
                    super().handle_error(request, client_address)  # pyright: ignore

        server = Server(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        self.address = f"http://127.0.0.1:{server.server_port}/v1"
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def _usage(messages: list[dict[str, str]], answer: str, prefixes: set[str]) -> dict[str, Any]:
    """Return the usage of an answer at four characters per token; a prefix of an earlier prompt counts as cached."""
    cached = 0
    for end in range(1, len(messages) + 1):
        prefix = json.dumps(messages[:end])
        if prefix in prefixes:
            cached = len(prefix) // 4
        prefixes.add(prefix)
    details = {"cached_tokens": cached}
    size = len(json.dumps(messages)) // 4
    return {"prompt_tokens": size, "completion_tokens": len(answer) // 4 + 1, "prompt_tokens_details": details}


@pytest.fixture(scope="session")
def chat_server() -> type[ChatServer]:
    return ChatServer
