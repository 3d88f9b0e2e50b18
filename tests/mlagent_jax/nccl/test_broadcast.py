"""Weights by NCCL, with a fake library in NCCL's place: the trainer's rank and two workers exchange real bytes."""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from shutil import which

import httpx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import ConfigError
from mlagent_jax.model.checksum import checksum
from mlagent_jax.model.families.qwen2 import Qwen2Config
from mlagent_jax.model.hf import hf_tensors, save_hf
from mlagent_jax.model.sharding import make_mesh
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.nccl import sender as sender_module
from mlagent_jax.nccl import sync as sync_module
from mlagent_jax.nccl.library import NcclError, NcclLibrary
from mlagent_jax.nccl.sender import NcclSender, WeightPart, weight_parts
from mlagent_jax.nccl.sync import NcclFollower, NcclSync
from mlagent_jax.stages.ppo import STAGE
from rollout.errors import ServerError
from rollout.inference.client import PolicyClient
from rollout.runtime.event_loop import EventLoopThread

HERE = Path(__file__).parent
PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]
needs_compiler = pytest.mark.skipif(which("cc") is None, reason="the fake library needs a C compiler")


@pytest.fixture(scope="module")
def shape(tiny_config: Qwen2Config) -> Qwen2Config:
    """An embedding that does not fit the buffer of a socket, so that a sender waits for its receivers."""
    return replace(tiny_config, vocab_size=16_000)


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> str:
    library = tmp_path_factory.mktemp("nccl") / "fake.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, HERE / "fake_nccl.c"], check=True)
    return str(library)


@pytest.fixture(scope="module")
def address(
    libraries: str, shape: Qwen2Config, make_model: Callable[..., Transformer], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    save_hf(make_model(shape), folder)
    os.environ["FAKE_NCCL"] = str(folder)
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[2]), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(HERE / "fake_server.py"), str(folder), libraries]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        yield next(line.strip() for line in lines if line.startswith("http://"))
    finally:
        process.kill()
        process.communicate()
        del os.environ["FAKE_NCCL"]


@pytest.fixture
def push(address: str, libraries: str, tmp_path: Path) -> Iterator[Callable[[Transformer, int], None]]:
    """Send a model as PPO does."""
    client = PolicyClient(address, temperature=1.0, max_tokens=8, stop_ids=[1], request_seconds=60)
    sync = NcclSync(client, tmp_path, PROMPT, "bfloat16", "bfloat16", NcclLibrary(libraries, libraries))
    with EventLoopThread() as event_loop:
        try:
            event_loop.run(client.connect())
            yield lambda model, version: sync.send(event_loop, model, version)
        finally:
            event_loop.run(client.close())
            sync._sender.abort()


def plant(address: str, kind: str | None, worker: int = 1) -> None:
    assert httpx.post(f"{address}/fault", json={"kind": kind, "worker": worker}, trust_env=False).status_code == 200


def sums(model: Transformer) -> dict[str, float]:
    return {name: float(jnp.sum(tensor.astype(jnp.float32))) for name, tensor in hf_tensors(model, "bfloat16")}


def require_served(address: str, model: Transformer) -> None:
    replicas = httpx.post(f"{address}/tensors", json={}, trust_env=False).json()
    assert len(replicas) == 2
    for found in replicas:
        for name, expected in sums(model).items():
            assert abs(found[name] - expected) < 1e-2, name


@needs_compiler
@pytest.mark.vllm
@pytest.mark.timeout(300)
def test_every_replica_receives_every_tensor_and_faults_end_an_update(
    push: Callable[[Transformer, int], None],
    make_model: Callable[..., Transformer],
    shape: Qwen2Config,
    address: str,
) -> None:
    first, second = (make_model(shape, seed=seed) for seed in (1, 2))
    third = make_model(shape, seed=3, mesh=make_mesh(1, 2, 2, 1))  # every device gathers what the first one sends
    push(first, 1)
    require_served(address, first)
    push(second, 2)  # in the same group
    require_served(address, second)
    for kind, match in (
        ("damaged", "is not the tensor that was broadcast"),
        ("stale", "replica 1 of the server: the policy server does not have the weights"),
        ("refuses", "refused before anything is received"),
    ):
        plant(address, kind)
        with pytest.raises(ServerError, match=rf"(?s){match}.*version 2 could not be restored"):
            push(third, 3)
        plant(address, None)
        push(third, 3)  # in a new group, if the fault ended the last one
        require_served(address, third)
        push(second, 2)
    require_served(address, second)


def test_every_process_runs_the_same_programs_in_the_same_order(
    make_model: Callable[..., Transformer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If one of them did not, the others would wait for it in a collective forever."""
    ran, sent, gather = [], list[str](), sender_module._on_every_device

    async def take_all(client: object, sender: object, parts: Iterator[WeightPart], *_: object) -> None:
        sent.extend(name for part in parts for name in part.names)

    def gathered(tensor: jax.Array, model: Transformer) -> jax.Array:
        ran.append(tensor.shape)
        return gather(tensor, model)

    def scored(model: Transformer, canary: list[int]) -> list[float]:
        ran.append(tuple(canary))
        return [0.0]

    monkeypatch.setattr(sender_module, "_on_every_device", gathered)
    monkeypatch.setattr(sync_module, "canary_logprobs", scored)
    monkeypatch.setattr(PolicyClient, "update_by_broadcast", take_all)
    model = make_model(mesh=make_mesh(1, 2, 2, 1))
    client = PolicyClient("http://nowhere", temperature=1.0, max_tokens=8, stop_ids=[1])
    leader = NcclSync(client, tmp_path, PROMPT, "bfloat16", "bfloat16", object.__new__(NcclLibrary))
    with EventLoopThread() as event_loop:
        leader.send(event_loop, model, 1)
    by_leader = list(ran)
    ran.clear()
    NcclFollower(tmp_path, PROMPT, "bfloat16").follow(model)
    assert ran == by_leader
    assert ran[0] == tuple(PROMPT) and len(ran) == 1 + len(sent) > 20


@pytest.mark.gpu
def test_nccl_takes_arrays_of_jax_from_a_gpu(make_model: Callable[..., Transformer]) -> None:
    """A group of one rank: the libraries are found, and every call and pointer is accepted."""
    sender = NcclSender(NcclLibrary())
    sender.invite(0)
    sender.join()
    parts = list(weight_parts(make_model(), "bfloat16"))
    for part in parts:
        assert len(part.description()["checksums"]) == len(part.names)
        sender.send(part)
    sender.abort()
    with pytest.raises(NcclError, match="was ended"):
        sender.send(parts[0])


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float16"])
def test_devices_and_workers_compute_the_same_checksum(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from rollout.inference import tensor_checksum

    monkeypatch.setattr(tensor_checksum, "CHUNK", 1000)  # several chunks
    values = np.random.default_rng(0).standard_normal((57, 101)).astype(np.float32)
    ours = jnp.asarray(values, dtype)
    tensor = torch.tensor(values).to(getattr(torch, dtype))
    expected = checksum(ours).tolist()
    assert tensor_checksum.checksum(tensor) == expected
    swapped = tensor.clone()
    swapped[0, 0], swapped[50, 3] = tensor[50, 3], tensor[0, 0]
    flipped = tensor.clone()
    flipped.view(-1).view(torch.uint8)[-1] ^= 1
    for other in (swapped, flipped, tensor.T.contiguous(), torch.zeros_like(tensor)):
        assert tensor_checksum.checksum(other) != expected


def test_nccl_is_refused_where_it_cannot_work() -> None:
    if sysconfig.get_platform().startswith("linux") and not any(Path("/proc/driver/nvidia").glob("*")):
        config = load_config(None, ["server.weight_transfer=nccl"])
        with pytest.raises(ValueError, match="server.weight_transfer=nccl needs NCCL and the CUDA runtime"):
            STAGE.check(config)
    with pytest.raises(ConfigError, match="server.weight_transfer=nccl cannot send weights to a server that"):
        load_config(None, ["server.weight_transfer=nccl", "server.new_weights=restart"])
