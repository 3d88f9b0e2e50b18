"""The policy server serves a Qwen3 network that we saved, and takes new weights of it."""

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from flax import nnx

from mlagent_jax.model.families.qwen3 import Qwen3Config
from mlagent_jax.model.hf import save_hf
from mlagent_jax.model.sharding import make_mesh
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.training.saved_policy import canary_logprobs
from mlagent_jax.weight_sync import WeightSync
from rollout.errors import ServerError
from rollout.inference.client import PolicyClient
from rollout.inference.server import ServerOptions
from rollout.inference.server_process import ServerProcess

CONFIG = Qwen3Config(
    vocab_size=512,
    hidden_size=64,
    intermediate_size=128,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,  # not 64 / 4; vLLM's CPU attention has none smaller
    max_position_embeddings=1024,
    initializer_range=0.1,  # far from uniform, so that wrong weights show
)
CANARY = [(37 * i) % 500 for i in range(200)]


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.parametrize("tied", [True, False])
def test_server_takes_weights_of_qwen3_and_gives_the_trainers_logprobs(
    tied: bool, checkpoint: Path, tmp_path: Path
) -> None:
    config, mesh = replace(CONFIG, tie_word_embeddings=tied), make_mesh(1, 1, 1, 1)
    first, second = (Transformer(config, nnx.Rngs(seed), mesh=mesh) for seed in (0, 1))
    for name in ("q_norm", "k_norm"):
        parameter = getattr(second.layers, name)
        parameter[...] = parameter[...] + 0.5  # or a server without these norms' weights would not show
    folder = tmp_path / "policy"
    save_hf(first, folder)
    for path in checkpoint.glob("token*"):
        shutil.copyfile(path, folder / path.name)

    async def push(process: ServerProcess) -> None:
        async with PolicyClient(
            process.address, temperature=1.0, max_tokens=4, stop_ids=[1], key=process.key
        ) as client:
            sync = WeightSync(client, tmp_path / "weights", CANARY, "float32")
            await sync.give(sync.write(second), 1)  # raises ServerError unless the log-probabilities are the second's
            assert client.version == 1
            wrong = sync.write(first)
            with pytest.raises(ServerError):
                await sync.give(replace(wrong, logprobs=canary_logprobs(second, sync.canary)), 2)

    options = ServerOptions(max_model_len=1024, kv_cache_mb=64, num_threads=1)
    with ServerProcess(folder, tmp_path / "server.log", options) as process:
        asyncio.run(push(process))
