"""The one real policy server that all tests marked `vllm` share, and the small checkpoints it serves."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import settings

from rollout.chat import ChatTokenizer, train_tokenizer
from rollout.client import PolicyClient
from rollout.experience import Experience
from rollout.server import ServerOptions
from rollout.server_process import ServerProcess
from tasks.feedback import Outcome
from tasks.prompt import SYSTEM

settings.register_profile("repeatable", deadline=None, derandomize=True)  # no failure by load or by chance
settings.load_profile("repeatable")

T = TypeVar("T")
VOCAB_SIZE = 512
MAX_MODEL_LEN = 1024
NUM_TOKENS = 64  # of the vocabulary that made-up experiences are of


def write_checkpoint(folder: Path, seed: int) -> Path:
    """Writes a random Qwen2 checkpoint of two layers with a tied head, and a tokenizer trained on our own prompt."""
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
        num_attention_heads=2,  # of 32 dimensions: vLLM's CPU attention has none smaller
        num_key_value_heads=1,
        max_position_embeddings=MAX_MODEL_LEN,
        tie_word_embeddings=True,
        initializer_range=0.1,  # far from uniform, so that wrong weights show
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.pad_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        Qwen2ForCausalLM(config).float().save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class ServedPolicy:
    """The shared server and what belongs to it.

    Attributes:
        address: where it listens.
        folder: the checkpoint that it was started on.
        other: a checkpoint of the same shape with other weights.
        process: the running server.
    """

    address: str
    folder: Path
    other: Path
    process: ServerProcess

    def tokenizer(self) -> ChatTokenizer:
        """Returns the tokenizer of both checkpoints."""
        return ChatTokenizer(self.folder)

    def run(self, body: Callable[[PolicyClient], Awaitable[T]], **settings: object) -> T:
        """Runs a coroutine with a connected client and returns what it returns."""
        defaults = {"temperature": 1.0, "max_tokens": 16, "stop_ids": [self.tokenizer().eos_id]}

        async def connected() -> T:
            async with PolicyClient(self.address, **{**defaults, **settings}) as client:  # pyright: ignore
                return await body(client)

        return asyncio.run(connected())


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
def policy_server(_policy_server: ServedPolicy) -> Iterator[ServedPolicy]:
    """A running policy server; whatever weights a test gives it, the next one finds the first ones again."""
    yield _policy_server

    async def restore(client: PolicyClient) -> None:
        if client.version != 0:
            await client.update_weights(_policy_server.folder, 0)

    _policy_server.run(restore)


def _make_experience(
    prompt: Sequence[int], response: Sequence[int], reward: float | None = 0.0, *, trajectory_id: str = "one"
) -> Experience:
    """Returns a response to the state of so many tokens; the sampler's log-probs are a policy's that is all at sea."""
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
        context={},
    )


@pytest.fixture(scope="session")
def make_experience() -> Callable[..., Experience]:
    return _make_experience
