"""A real server takes adapters as new weights: what it samples from, and that faults leave the one before."""

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rollout.errors import ServerError
from rollout.inference.agreement import tolerance_for
from rollout.inference.canary import Canary
from rollout.inference.client import PolicyClient
from rollout.inference.server import ServerOptions
from rollout.inference.server_process import ServerProcess
from rollout.inference.weight_files import ADAPTER, ADAPTER_CONFIG, check_adapter, tensor_shapes

PROMPT = [(37 * i) % 500 for i in range(200)]  # more than a block of 128 tokens, the unit of the prefix cache on a CPU
RANK = 4
WEIGHTS = "adapter_model.safetensors"


def write_adapter(base: Path, folder: Path, seed: int, rank: int = RANK) -> Path:
    """Write a folder with a random adapter of all matrices of `base`, as PEFT writes it, and return the folder."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in tensor_shapes(base).items():
        module = name.removesuffix(".weight")
        if module.endswith("_proj"):
            for letter, size in (("A", (rank, shape[1])), ("B", (shape[0], rank))):
                values = 0.15 * rng.standard_normal(size)
                tensors[f"base_model.model.{module}.lora_{letter}.weight"] = values.astype(np.float32)
    (folder / ADAPTER).mkdir(parents=True)
    save_file(tensors, folder / ADAPTER / WEIGHTS)
    targets = sorted({name.split(".")[-3] for name in tensors})
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": targets, "bias": "none"}
    (folder / ADAPTER / ADAPTER_CONFIG).write_text(json.dumps(config))
    return folder


def table_of(base: Path, folder: Path | None = None) -> np.ndarray:
    """Log-probabilities of all tokens after each of the prompt's, by transformers in fp32, with the adapter merged."""
    import torch
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if folder is not None:
        tensors = load_file(folder / ADAPTER / WEIGHTS)
        for name, module in network.named_modules():
            a = tensors.get(f"base_model.model.{name}.lora_A.weight")
            if a is not None:
                b = tensors[f"base_model.model.{name}.lora_B.weight"]
                module.weight.data += torch.from_numpy(2.0 * b @ a)
    with torch.no_grad():
        return network(torch.tensor([PROMPT])).logits[0].log_softmax(-1).numpy()


def logprobs(base: Path, folder: Path | None = None) -> list[float]:
    """Log-probabilities of the prompt's tokens but the first."""
    return [float(row[token]) for row, token in zip(table_of(base, folder), PROMPT[1:], strict=False)]


Body = Callable[[PolicyClient], Awaitable[None]]


@pytest.fixture(scope="module")
def run(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Body], None]]:
    """Run a coroutine with a new client of one server of the checkpoint."""
    options = ServerOptions(max_model_len=256, kv_cache_mb=64, num_threads=1, max_adapter_rank=RANK)
    log = tmp_path_factory.mktemp("server") / "server.log"
    with ServerProcess(checkpoint, log, options) as process:

        async def connected(body: Body) -> None:
            settings = {"temperature": 1.0, "max_tokens": 8, "stop_ids": []}
            async with PolicyClient(process.address, key=process.key, max_adapter_rank=RANK, **settings) as client:
                await body(client)

        yield lambda body: asyncio.run(connected(body))


def canary_of(base: Path, folder: Path | None) -> Canary:
    return Canary(PROMPT, logprobs(base, folder), tolerance_for("float32"))


@pytest.mark.slow
def test_server_samples_from_the_adapter_that_it_was_given_last(
    run: Callable[[Body], None], checkpoint: Path, tmp_path: Path
) -> None:
    first, second = (write_adapter(checkpoint, tmp_path / str(seed), seed) for seed in (1, 2))

    async def body(client: PolicyClient) -> None:
        start = client.version
        for number, folder in enumerate((first, second, None, second), start + 1):
            await client.update_weights(folder or checkpoint, number, canary=canary_of(checkpoint, folder))
            found = await client.score(PROMPT)
            np.testing.assert_allclose(found, logprobs(checkpoint, folder), atol=1e-4)
            for completion in await client.sample(PROMPT[:20], num_samples=2, seed=0):
                assert completion.policy_version == number
                whole = [*PROMPT[:20], *completion.token_ids]
                scored = (await client.score(whole))[19:]
                np.testing.assert_allclose(completion.logprobs, scored, atol=1e-4)
        models = [model["id"] for model in (await client.connection.get("/v1/models"))["data"]]
        assert len(models) == 2  # the base and the adapter that is served; that of an older version is unloaded

    run(body)


@pytest.mark.slow
def test_a_response_that_began_before_an_update_ends_with_its_own_adapter(
    run: Callable[[Body], None], checkpoint: Path, tmp_path: Path
) -> None:
    first, second = (write_adapter(checkpoint, tmp_path / str(seed), seed) for seed in (1, 2))

    async def body(client: PolicyClient) -> None:
        await client.update_weights(first, client.version + 1)
        version, client.max_tokens = client.version, 120
        begun = [asyncio.create_task(client.sample(PROMPT[:20], num_samples=1, seed=seed)) for seed in range(6)]
        await asyncio.sleep(0.2)
        await client.update_weights(second, version + 1, canary=canary_of(checkpoint, second))
        later = await client.sample(PROMPT[:20], num_samples=1, seed=0)
        assert later[0].policy_version == version + 1
        before = [completion for each in await asyncio.gather(*begun) for completion in each]
        assert {completion.policy_version for completion in before} == {version}
        await client.update_weights(first, version + 2)
        for completion in before:
            scored = (await client.score([*PROMPT[:20], *completion.token_ids]))[19:]
            np.testing.assert_allclose(completion.logprobs, scored, atol=1e-4)

    run(body)


@pytest.mark.slow
def test_an_update_that_fails_leaves_the_adapter_before(
    run: Callable[[Body], None], checkpoint: Path, tmp_path: Path
) -> None:
    first, second, larger = (
        write_adapter(checkpoint, tmp_path / name, seed, rank)
        for name, seed, rank in (("1", 1, RANK), ("2", 2, RANK), ("3", 3, 2 * RANK))
    )
    half = tmp_path / "half"
    shutil.copytree(second, half)
    tensors = load_file(half / ADAPTER / WEIGHTS)
    save_file({name: tensors[name] for name in sorted(tensors)[::2]}, half / ADAPTER / WEIGHTS)

    async def body(client: PolicyClient) -> None:
        await client.update_weights(first, client.version + 1, canary=canary_of(checkpoint, first))
        version, expected = client.version, await client.score(PROMPT)
        with pytest.raises(ServerError, match=rf"does not have the weights.*; version {version} is served again"):
            await client.update_weights(second, version + 1, canary=canary_of(checkpoint, first))  # not the one sent
        for folder, message in ((half, "has shape none, the served model needs"), (larger, "its rank is 8, and")):
            with pytest.raises(ValueError, match=message):
                await client.update_weights(folder, version + 1)
        with pytest.raises(ServerError, match=rf"is not the tensor that was sent; version {version} is still served"):
            digests = dict.fromkeys(load_file(second / ADAPTER / WEIGHTS), "0" * 32)
            await client.update_weights(second, version + 1, digests)
        assert client.version == version
        np.testing.assert_array_equal(await client.score(PROMPT), expected)
        (completion,) = await client.sample(PROMPT[:20], num_samples=1, seed=0)
        assert completion.policy_version == version

    run(body)


@pytest.mark.slow
def test_an_adapter_in_the_servers_own_folder_is_not_applied_to_its_weights(
    run: Callable[[Body], None], checkpoint: Path, tmp_path: Path
) -> None:
    """An export of a run with adapters has its weights merged, and the adapter beside them."""
    other = write_adapter(checkpoint, tmp_path / "other", 1)
    shutil.copytree(other / ADAPTER, checkpoint / ADAPTER)

    async def body(client: PolicyClient) -> None:
        for folder, expected in ((other, other), (checkpoint, None)):
            await client.update_weights(folder, client.version + 1, canary=canary_of(checkpoint, expected))

    try:
        run(body)
    finally:
        shutil.rmtree(checkpoint / ADAPTER)


@pytest.mark.slow
def test_the_prefix_cache_of_an_older_adapter_is_not_used(
    run: Callable[[Body], None], checkpoint: Path, tmp_path: Path
) -> None:
    """The names of versions keep their caches apart. Under one name, vLLM takes keys and values of the older one."""
    folder, newer = (write_adapter(checkpoint, tmp_path / name, seed) for name, seed in (("old", 1), ("new", 2)))
    expected = table_of(checkpoint, newer)[179]

    def overwrite(source: Path) -> None:
        shutil.rmtree(folder / ADAPTER)
        shutil.copytree(source / ADAPTER, folder / ADAPTER)

    async def error_of(client: PolicyClient, name: str) -> float:
        """The difference of a sampled token's log-probability from that by the newer adapter, in nats."""
        sampling = {"max_tokens": 1, "temperature": 1.0, "seed": 0, "logprobs": 0, "detokenize": False}
        body = {"token_ids": PROMPT[:180], "sampling_params": sampling, "model": name}
        (choice,) = (await client.connection.post("/inference/v1/generate", body))["choices"]
        return abs(choice["logprobs"]["content"][0]["logprob"] - float(expected[choice["token_ids"][0]]))

    async def body(client: PolicyClient) -> None:
        older = tmp_path / "kept"
        shutil.copytree(folder, older)
        for source, is_newer in ((older, False), (newer, True)):
            overwrite(source)
            await client.update_weights(folder, client.version + 1)
            assert client._updates.adapter is not None
            assert (await error_of(client, client._updates.adapter.name) < 1e-4) == is_newer
        for source in (older, newer):
            overwrite(source)
            load = {"lora_name": "same", "lora_path": str(folder / ADAPTER), "load_inplace": True}
            await client.connection.text("/v1/load_lora_adapter", load)
            stale = await error_of(client, "same")
        assert stale > 1e-2

    run(body)


def test_an_adapter_must_have_both_factors_of_every_matrix_that_it_names(checkpoint: Path, tmp_path: Path) -> None:
    folder = write_adapter(checkpoint, tmp_path, 1) / ADAPTER
    shapes = tensor_shapes(checkpoint)
    check_adapter(folder, shapes, RANK)
    tensors = load_file(folder / WEIGHTS)
    for change in (
        {name: tensors[name] for name in sorted(tensors)[1:]},
        tensors | {"base_model.model.lm_head.lora_A.weight": np.zeros((RANK, 64), np.float32)},
        tensors | {min(tensors): np.zeros((RANK + 1, 64), np.float32)},
    ):
        save_file(change, folder / WEIGHTS)
        with pytest.raises(ValueError, match="the served model needs"):
            check_adapter(folder, shapes, RANK)
