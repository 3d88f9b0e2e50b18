"""Faults with which trainers silently collapse, planted one by one next to the real server: each is caught."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import OptimizerState
from mlagent_jax.model.hf import load_hf
from mlagent_jax.model.packed_batch import RowBuilder
from mlagent_jax.model.sharding import make_mesh
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.ppo.learner import Learner
from mlagent_jax.ppo.train_inference_mismatch import TrainInferenceMismatch
from mlagent_jax.weight_sync import WeightSync
from rollout.errors import ServerError
from rollout.inference.agreement import tolerance_for
from rollout.inference.client import PolicyClient
from rollout.sampling.experience import Experience

pytestmark = pytest.mark.vllm

CONFIG = replace(
    load_config().ppo,
    advantage="leave_one_out",
    temperature=0.8,
    max_response_tokens=16,
    row_length=400,
    predictions_per_row=128,
    rows_per_micro_batch=1,
)
PROMPTS = [[(37 * i + 11 * j) % 500 for i in range(300)] for j in range(2)]
SAMPLES = 4


@pytest.fixture(scope="module")
def model(_policy_server) -> Callable[[str], Transformer]:
    """Return a function that loads one of the two checkpoints into the trainer."""
    return lambda name: load_hf(getattr(_policy_server, name), "float32", make_mesh(1, 1, 1, 1), "none")


@pytest.fixture(scope="module")
def learner(model: Callable[[str], Transformer]) -> Learner:
    """A learner of the served policy, with the tolerance of an fp32 run."""
    return Learner(model("folder"), None, CONFIG, make_mesh(1, 1, 1, 1), OptimizerState(), tolerance_for("float32"))


@pytest.fixture
def sampled(policy_server, make_experience: Callable[..., Experience]) -> Callable[..., list[Experience]]:
    """Return a function that samples from the real server."""

    def sample(temperature: float = CONFIG.temperature, before: Callable | None = None) -> list[Experience]:
        async def body(client: PolicyClient) -> list[Experience]:
            if before is not None:
                await before(client)
            answers = await asyncio.gather(
                *(client.sample(prompt, num_samples=SAMPLES, seed=index) for index, prompt in enumerate(PROMPTS))
            )
            return [
                replace(
                    make_experience(prompt, completion.token_ids, float(number), trajectory_id=str(index)),
                    sample=number,
                    logprobs=completion.logprobs,
                    policy_version=completion.policy_version,
                )
                for index, (prompt, completions) in enumerate(zip(PROMPTS, answers, strict=True))
                for number, completion in enumerate(completions)
            ]

        return policy_server.run(body, temperature=temperature)

    return sample


def test_without_a_fault_server_and_trainer_agree_and_first_ratios_are_one(
    learner: Learner, sampled: Callable[..., list[Experience]]
) -> None:
    scored = learner.score(sampled())
    assert scored.figures["sampler/logprob_gap_max"] < 1e-3  # at a temperature that is not 1
    (batch, *_) = scored.batches
    _, figures = learner.policy.add_gradients(
        learner.policy.zeros(), learner.state.policy.parameters, batch, np.float32(1), np.bool_(False)
    )
    assert float(figures["approximate_kl"]) < 1e-6 and float(figures["clipped_share"]) == 0.0


def test_wrong_temperature_is_caught(learner: Learner, sampled: Callable[..., list[Experience]]) -> None:
    with pytest.raises(TrainInferenceMismatch, match="compare temperature"):
        learner.score(sampled(temperature=1.0))


def test_tokens_that_are_not_those_sampled_are_caught(
    learner: Learner, sampled: Callable[..., list[Experience]]
) -> None:
    """Return the same text in other tokens, as after tokenizing it again."""

    def again(each: Experience, number: int) -> Experience:
        ids = list(each.response_ids)
        return replace(each, response_ids=(*ids[:-1], (ids[-1] + 1) % 500)) if number == 3 else each

    experiences = [again(each, number) for number, each in enumerate(sampled())]
    with pytest.raises(TrainInferenceMismatch, match="worst in sample 3 at depth 300 of trajectory 0"):
        learner.score(experiences)


@pytest.mark.parametrize("fault", ["padding attended", "sibling attended"])
def test_attention_to_what_is_not_there_is_caught(
    learner: Learner, sampled: Callable[..., list[Experience]], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiences = sampled()
    add = RowBuilder.add
    if fault == "padding attended":

        def padded(row: RowBuilder, tokens: Sequence[int], parent: int | None = None) -> int:
            return add(row, tokens, parent if parent is not None else add(row, [0] * 8))

        monkeypatch.setattr(RowBuilder, "add", padded)
    else:
        monkeypatch.setattr(RowBuilder, "ends", lambda row: [len(row.tokens)] * len(row.tokens))
    with pytest.raises(TrainInferenceMismatch):
        learner.score(experiences)


def test_prefix_cache_that_is_not_emptied_is_caught(
    model: Callable[[str], Transformer],
    sampled: Callable[..., list[Experience]],
    policy_server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    newer = Learner(model("other"), None, CONFIG, make_mesh(1, 1, 1, 1), OptimizerState(), tolerance_for("float32"))

    async def update(client: PolicyClient) -> None:
        await asyncio.gather(*(client.sample(prompt, num_samples=1, seed=0) for prompt in PROMPTS))
        await client.update_weights(policy_server.other, 1)

    async def update_without(client: PolicyClient) -> None:
        await client.update_weights(policy_server.folder, 0)

        post = client.connection.post

        async def without(path: str, body: object = None) -> object:
            """Pause without clearing the cache, which vLLM does by default."""
            if path.startswith("/reset_prefix_cache"):
                return {"success": True}
            return await post(f"{path}&clear_cache=false" if path.startswith("/pause") else path, body)  # pyright: ignore[reportArgumentType]

        with monkeypatch.context() as patch:
            patch.setattr(client.connection, "post", without)
            await update(client)

    newer.version = 1
    newer.score(sampled(before=update))
    with pytest.raises(TrainInferenceMismatch, match="both of version 1"):
        newer.score(sampled(before=update_without))


def test_weights_that_are_not_sent_are_caught(
    policy_server, model: Callable[[str], Transformer], tmp_path, monkeypatch
):
    async def body(client: PolicyClient) -> None:
        sync = WeightSync(client, tmp_path / "weights", PROMPTS[0][:40], "float32")
        post = client.connection.post

        async def unsent(path: str, body: object = None) -> object:
            return {} if path == "/update_weights" else await post(path, body)  # pyright: ignore[reportArgumentType]

        with monkeypatch.context() as patch:
            patch.setattr(client.connection, "post", unsent)
            with pytest.raises(ServerError, match="does not have the weights that it was given"):
                await sync.give(sync.write(model("other")), 1)
        await sync.give(sync.write(model("other")), 1)

    policy_server.run(body)


def test_a_run_that_does_not_learn_keeps_its_difference(
    learner: Learner, sampled: Callable[..., list[Experience]], policy_server, tmp_path, monkeypatch
) -> None:
    """At learning rate 0, with weights sent after every update, the rounding difference does not grow."""
    gaps = []
    for version in range(1, 4):

        async def push(client: PolicyClient, version: int = version) -> None:
            sync = WeightSync(client, tmp_path / str(version), PROMPTS[0][:40], "float32")
            await sync.give(sync.write(learner.model()), version)

        monkeypatch.setattr(learner, "version", version)
        gaps.append(learner.score(sampled(before=push)).figures["sampler/logprob_gap_mean"])
    assert max(gaps) < 1e-4 and max(gaps) < 2 * min(gaps)
