"""New weights by a restart of the real server, as PPO gives them: by WeightSync, from models of the trainer's."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from mlagent_jax.model.hf import load_hf
from mlagent_jax.model.sharding import make_mesh
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.training.saved_policy import canary_logprobs
from mlagent_jax.weight_sync import WeightSync
from rollout.errors import ServerError
from rollout.inference.client import PolicyClient
from rollout.inference.server import ServerOptions, is_healthy
from rollout.inference.server_process import ServerProcess

PROMPT = [(37 * i) % 500 for i in range(300)]
T = TypeVar("T")


def run(process: ServerProcess, body: Callable[[PolicyClient], Awaitable[T]], max_tokens: int = 16) -> T:
    """Runs a coroutine with a client that restarts the process."""

    async def connected() -> T:
        client = PolicyClient(
            process.address,
            temperature=1.0,
            max_tokens=max_tokens,
            stop_ids=[1],
            request_seconds=120,
            restarts=process,
            key=process.key,
        )
        async with client:
            return await body(client)

    return asyncio.run(connected())


def load(folder: Path) -> Transformer:
    return load_hf(folder, "float32", make_mesh(1, 1, 1, 1), "none")


@pytest.fixture(scope="module")
def models(checkpoint: Path, other_checkpoint: Path) -> list[Transformer]:
    return [load(checkpoint), load(other_checkpoint)]


@pytest.fixture(scope="module")
def _process(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(checkpoint, folder / "policy")
    options = ServerOptions(max_model_len=1024, kv_cache_mb=64, num_threads=1, new_weights="restart")
    with ServerProcess(folder / "policy", folder / "server.log", options) as process:
        yield process


@pytest.fixture
def process(_process: ServerProcess) -> ServerProcess:
    """A server that restarts, on whatever weights the test before left it."""
    assert is_healthy(_process.address)
    return _process


@pytest.fixture
def served(process: ServerProcess) -> Transformer:
    """What the server has when the test begins."""
    return load(process.model)


@pytest.fixture
def new(served: Transformer, models: Sequence[Transformer]) -> Transformer:
    """Another model than the one that is served."""
    (model,) = [model for model in models if (model.embed_tokens[...] != served.embed_tokens[...]).any()]
    return model


def gap(logprobs: Sequence[float], sync: WeightSync, model: Transformer) -> float:
    return max(abs(ours - theirs) for ours, theirs in zip(logprobs, canary_logprobs(model, sync.canary), strict=True))


def api_server(process: ServerProcess) -> list[str]:
    """Returns the command line of the vLLM below a server process."""
    assert process.process is not None
    pid = process.process.pid
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[:1]
    return Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0")


@pytest.mark.vllm
def test_files_that_are_not_what_was_sent_leave_the_server_as_it_is(policy_server, models, tmp_path) -> None:
    """Compared before anything stops, so that the shared server, which takes weights otherwise, can show it."""
    process = policy_server.process
    pid = process.process.pid

    async def body(client: PolicyClient) -> None:
        sync = WeightSync(client, tmp_path / "weights", PROMPT, "float32")
        written = sync.write(models[1])
        name = "model.layers.1.mlp.down_proj.weight"
        for match, digests in (
            (f"{name} in .* is not the tensor", {**written.digests, name: "0" * 64}),
            ("is not the tensor that was sent", {key: value for key, value in written.digests.items() if key != name}),
            ("extra: sent, but in no file of", {**written.digests, "extra": "0" * 64}),
        ):
            with pytest.raises(ServerError, match=rf"{match}.*; version 0 is still served"):
                await sync.give(replace(written, digests=digests), 1)
            written = sync.write(models[1])  # what was refused is not kept
        damaged = sync.write(models[1])
        file = damaged.folder / "model.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        with pytest.raises(ServerError, match=r"is not the tensor that was sent.*; version 0 is still served"):
            await sync.give(damaged, 1)
        (completion,) = await client.sample(PROMPT, num_samples=1, seed=1)
        assert completion.policy_version == client.version == 0
        assert gap(await client.score(PROMPT), sync, models[0]) < 1e-4

    run(process, body)
    assert process.process.pid == pid


@pytest.mark.slow
def test_requests_under_way_end_before_a_restart_and_later_ones_have_the_new_weights(process, served, new, tmp_path):
    async def body(client: PolicyClient) -> int:
        sync = WeightSync(client, tmp_path / "weights", PROMPT, "float32")
        before, address, written = client.version, client.connection.address, sync.write(new)
        running = asyncio.create_task(client.sample(PROMPT, num_samples=2, seed=1))
        await asyncio.sleep(0.2)
        assert not running.done()
        update = asyncio.create_task(sync.give(written, before + 5))
        while not client._updating.locked():
            await asyncio.sleep(0.01)
        later = asyncio.create_task(client.sample(PROMPT, num_samples=1, seed=1))
        assert not running.done()
        flying = await running
        assert not update.done() and not later.done()  # it has its answer before the restart is over
        assert {completion.policy_version for completion in flying} == {before}
        assert all(len(completion.token_ids) == 600 or completion.finish_reason == "stop" for completion in flying)
        await update
        (fresh,) = await later
        assert fresh.policy_version == client.version == before + 5
        assert client.connection.address == process.address != address
        assert gap(await client.score(PROMPT), sync, new) < 1e-4
        assert gap(await client.score(PROMPT), sync, served) > 0.1
        return client.version

    version = run(process, body, max_tokens=600)
    command = api_server(process)
    assert command[command.index("--model") + 1] == str(process.model)
    assert not {"--worker-extension-cls", "--weight-transfer-config"} & set(command)

    async def next_stage(client: PolicyClient) -> int:
        return client.version

    assert run(process, next_stage) == version  # another client learns what the restarted server was told


@pytest.mark.slow
@pytest.mark.parametrize("step", ["start", "version", "canary"])
def test_a_restart_that_fails_at_any_step_leaves_the_weights_before(step, process, served, new, tmp_path, monkeypatch):
    async def body(client: PolicyClient) -> None:
        sync = WeightSync(client, tmp_path / "weights", PROMPT, "float32")
        written, before, folder = sync.write(new), client.version, process.model
        if step == "start":
            file = written.folder / "config.json"
            file.write_text(file.read_text().replace("Qwen2ForCausalLM", "NoSuchModel"))
            match = "(?s)ended before it was ready.*NoSuchModel"
        elif step == "version":
            match, post, failures = "/update_weight_version was answered 500", client.connection.post, [1]

            async def failing(path: str, body: object = None) -> object:
                if path == "/update_weight_version" and failures:
                    failures.clear()
                    raise ServerError(f"{path} was answered 500")
                return await post(path, body)  # pyright: ignore[reportArgumentType]

            monkeypatch.setattr(client.connection, "post", failing)
        else:  # other tensors than the canary's, with digests that nobody made
            shutil.copy(folder / "model.safetensors", written.folder / "model.safetensors")
            written = replace(written, digests={})
            match = "does not have the weights that it was given"
        with pytest.raises(ServerError, match=rf"{match}.*; version {before} is served again"):
            await sync.give(written, before + 1)
        assert process.model == folder and not written.folder.exists()
        (completion,) = await client.sample(PROMPT, num_samples=1, seed=1)
        assert completion.policy_version == client.version == before
        assert gap(await client.score(PROMPT), sync, served) < 1e-4

    run(process, body)


@pytest.mark.slow
def test_nothing_is_sampled_where_the_directory_before_is_gone_too(process, served, new, tmp_path):
    async def body(client: PolicyClient) -> None:
        sync = WeightSync(client, tmp_path / "weights", PROMPT, "float32")
        before = client.version
        wrong = replace(sync.write(new), logprobs=canary_logprobs(served, sync.canary))
        shutil.rmtree(process.model)
        with pytest.raises(ServerError, match=f"version {before} could not be restored.*restart the server"):
            await sync.give(wrong, before + 1)
        assert process.process is None
        with pytest.raises(ServerError, match="got no answer"):
            await client.sample(PROMPT, num_samples=1, seed=1)
        await sync.give(sync.write(new), before + 2)
        assert (await client.sample(PROMPT, num_samples=1, seed=1))[0].policy_version == before + 2

    run(process, body)
