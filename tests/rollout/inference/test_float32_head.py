"""A real server in bf16 with its head in float32: its logits, what it starts on and what it loads, with a tied head."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from rollout.errors import ServerError
from rollout.inference.agreement import tolerance_for
from rollout.inference.canary import Canary, verify_weights
from rollout.inference.client import PolicyClient
from rollout.inference.server import ServerOptions
from rollout.inference.server_process import ServerProcess

PROMPT = [(37 * i) % 500 for i in range(200)]
UNIT = 2.0**-8  # bfloat16 values from 1/2 to 1 are multiples of it, and larger ones too


def table(folder: Path) -> np.ndarray:
    """Log-probabilities of all tokens by transformers in bf16, with a head in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    assert network.lm_head.weight is network.model.embed_tokens.weight
    with torch.no_grad():
        hidden = network.model(torch.tensor([PROMPT])).last_hidden_state[0, :-1].float()
        return (hidden @ network.lm_head.weight.float().T).log_softmax(-1).numpy()


def logprobs(folder: Path) -> list[float]:
    """Log-probabilities of the prompt's tokens but the first."""
    return [float(row[token]) for row, token in zip(table(folder), PROMPT[1:], strict=True)]


async def logit_differences(client: PolicyClient, tokens: np.ndarray) -> np.ndarray:
    """The server's logits of next tokens, less that of the first of them."""
    scores = [(await client.score([*PROMPT[:50], int(token)]))[-1] for token in tokens]
    return np.array(scores) - scores[0]


@pytest.mark.slow
def test_head_is_in_float32_and_if_tied_has_the_weights_that_were_loaded_last(
    checkpoint: Path, other_checkpoint: Path, tmp_path: Path
):
    tolerance = tolerance_for("bfloat16")
    order = np.argsort(table(checkpoint)[49])
    extreme = np.concatenate([order[:8], order[-8:]])  # the largest logits of both signs, 1 to 2

    async def body(address: str, key: str) -> None:
        async with PolicyClient(address, temperature=1.0, max_tokens=8, stop_ids=[], key=key) as client:
            differences = await logit_differences(client, extreme)
            assert np.abs(differences - UNIT * np.round(differences / UNIT)).max() > UNIT / 10  # no bfloat16 values
            for version, (folder, wrong) in enumerate([(other_checkpoint, checkpoint), (checkpoint, other_checkpoint)]):
                canary = Canary(PROMPT, logprobs(folder), tolerance)
                await client.update_weights(folder, version + 1, canary=canary)
                with pytest.raises(ServerError, match="does not have the weights"):
                    await verify_weights(client, [(PROMPT, logprobs(wrong))], tolerance)

    options = ServerOptions(dtype="bfloat16", max_model_len=256, kv_cache_mb=64, num_threads=1)
    with ServerProcess(checkpoint, tmp_path / "server.log", options) as process:
        asyncio.run(body(process.address, process.key))
