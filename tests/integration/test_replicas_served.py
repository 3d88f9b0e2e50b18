"""New weights reach every replica of a real vLLM, and each of them is verified."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlagent_jax.model.hf import load_hf
from mlagent_jax.model.sharding import make_mesh
from mlagent_jax.weight_sync import WeightSync
from rollout.errors import ServerError
from rollout.inference.client import PolicyClient
from rollout.inference.server import ServerOptions
from rollout.inference.server_process import ServerProcess

SETTINGS: Any = {"temperature": 1.0, "max_tokens": 4, "stop_ids": [1]}
PROMPT = [(37 * i) % 500 for i in range(40)]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def process(checkpoint: Path, tmp_path: Path) -> Iterator[ServerProcess]:
    options = ServerOptions(max_model_len=256, kv_cache_mb=32, num_threads=1, data_parallel=2)
    with ServerProcess(checkpoint, tmp_path / "server.log", options, start_seconds=300) as process:
        yield process


def test_every_replica_takes_new_weights_and_refuses_others(
    process: ServerProcess, checkpoint: Path, other_checkpoint: Path, tmp_path: Path
) -> None:
    model = load_hf(other_checkpoint, "float32", make_mesh(1, 1, 1, 1), "none")

    async def body() -> None:
        async with PolicyClient(process.address, key=process.key, **SETTINGS) as client:
            sync = WeightSync(client, tmp_path / "weights", PROMPT, "float32")
            before = [await client.score(PROMPT, replica) for replica in (0, 1)]
            written = sync.write(model)
            await sync.give(written, 1)
            for replica, old in enumerate(before):
                new = await client.score(PROMPT, replica)
                assert max(abs(a - b) for a, b in zip(new, written.logprobs, strict=True)) < 1e-4
                assert max(abs(a - b) for a, b in zip(old, written.logprobs, strict=True)) > 0.1
            samples = await asyncio.gather(*(client.sample(PROMPT, num_samples=1, seed=seed) for seed in range(6)))
            assert {completion.policy_version for (completion,) in samples} == {1}
            name = "model.norm.weight"
            with pytest.raises(ServerError, match=f"{name} in .* is not the tensor that was sent"):
                await client.update_weights(written.folder, 2, {**written.digests, name: "xxh3_128:" + "0" * 32})
            for replica in (0, 1):
                assert await client.score(PROMPT, replica) == pytest.approx(written.logprobs, abs=1e-4)
            with pytest.raises(ServerError, match="out of range"):
                await client.score(PROMPT, 2)

    asyncio.run(body())
