import asyncio
import hashlib
import math
import random
import re
import shutil
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import httpx
import pytest

from rollout.errors import ServerError
from rollout.inference.agreement import Tolerance
from rollout.inference.canary import Canary, verify_weights
from rollout.inference.client import PolicyClient
from rollout.inference.server import free_port
from rollout.types import Completion

CLOSE, NEAR = Tolerance(1e-4, 1e-4), Tolerance(1e-3, 1e-3)
PROMPT = [(37 * i) % 500 for i in range(300)]  # longer than two blocks of the prefix cache


@cache
def reference(folder: Path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def reference_logprobs(folder: Path, token_ids: Sequence[int], temperature: float = 1.0) -> list[float]:
    """Log-probabilities by transformers of all tokens but the first."""
    import torch

    with torch.no_grad():
        logits = reference(folder)(torch.tensor([list(token_ids)])).logits[0] / temperature
    table = logits.log_softmax(-1)
    return [table[i, token].item() for i, token in enumerate(token_ids[1:])]


def difference(completion: Completion, folder: Path, prompt: Sequence[int], temperature: float) -> float:
    expected = reference_logprobs(folder, [*prompt, *completion.token_ids], temperature)[len(prompt) - 1 :]
    return max(abs(ours - theirs) for ours, theirs in zip(completion.logprobs, expected, strict=True))


def expectations(folder: Path) -> list[tuple[list[int], list[float]]]:
    prompts = [PROMPT[:40], PROMPT[5:170]]
    return [(prompt, reference_logprobs(folder, prompt)) for prompt in prompts]


def save_changed(folder: Path, source: Path, change) -> Path:
    """Copies a checkpoint with the tensors that `change` makes of its own."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.vllm
def test_samples_are_tokens_with_the_logprobs_they_were_sampled_at(policy_server):
    async def body(client: PolicyClient):
        return await client.sample(PROMPT, num_samples=4, seed=3)

    for temperature in (1.0, 0.6):
        completions = policy_server.run(body, temperature=temperature, max_tokens=20)
        assert len(completions) == 4
        assert len({completion.token_ids for completion in completions}) == 4
        for completion in completions:
            assert len(completion.logprobs) == len(completion.token_ids) <= 20
            assert completion.policy_version == 0
            assert difference(completion, policy_server.folder, PROMPT, temperature) < 1e-4


@pytest.mark.vllm
def test_a_seed_repeats_its_samples_and_neighbouring_seeds_share_none(policy_server):
    async def body(client: PolicyClient):
        return [await client.sample(PROMPT, num_samples=4, seed=seed) for seed in (7, 7, 8)]

    first, again, other = policy_server.run(body)
    assert [completion.token_ids for completion in first] == [completion.token_ids for completion in again]
    assert not {completion.token_ids for completion in first} & {completion.token_ids for completion in other}


@pytest.mark.vllm
def test_a_response_ends_with_its_stop_token_or_at_the_limit(policy_server):
    async def body(client: PolicyClient):
        return (await client.sample(PROMPT, num_samples=1, seed=1))[0]

    free = policy_server.run(body)
    assert (len(free.token_ids), free.finish_reason) == (16, "length")
    stop = free.token_ids[5]
    ended = policy_server.run(body, stop_ids=[stop])
    assert (ended.token_ids, ended.finish_reason) == (free.token_ids[: free.token_ids.index(stop) + 1], "stop")


@pytest.mark.vllm
def test_many_requests_at_once_each_get_their_own_answer(policy_server):
    prompts = [PROMPT[: 20 + i] for i in range(24)]

    async def body(client: PolicyClient):
        return await asyncio.gather(*(client.sample(p, num_samples=2, seed=i) for i, p in enumerate(prompts)))

    for prompt, completions in zip(prompts, policy_server.run(body), strict=True):
        assert all(difference(completion, policy_server.folder, prompt, 1.0) < 1e-4 for completion in completions)


@pytest.mark.vllm
def test_prefix_cache_gives_the_full_blocks_of_shared_histories_and_counts_them(policy_server):
    rng = random.Random("a history no other test has")
    history = [rng.randrange(500) for _ in range(900)]
    strangers = [[rng.randrange(500) for _ in range(300)] for _ in range(2)]

    async def used(client: PolicyClient, prompts: list[list[int]], num_samples: int) -> tuple[int, int]:
        before = await client.prefix_cache_stats()
        await asyncio.gather(*(client.sample(p, num_samples=num_samples, seed=i) for i, p in enumerate(prompts)))
        after = await client.prefix_cache_stats()
        return after.tokens - before.tokens, after.hits - before.hits

    async def body(client: PolicyClient):
        metrics = await client.connection.text("/metrics")
        nothing_shared = await used(client, strangers, 1)
        before_and_deeper = [await used(client, [history[:400]], 1), await used(client, [history[:700]], 1)]
        siblings = await used(client, [history[:700]], 3)
        await client.update_weights(policy_server.other, 5)
        at_once = await used(client, [history[:900], history[:400], history[:700]], 2)  # in any order
        await client.score(history[:700])
        return metrics, nothing_shared, before_and_deeper, siblings, at_once, await used(client, [], 1)

    metrics, nothing_shared, before_and_deeper, siblings, at_once, scored = policy_server.run(body)
    block = int(re.findall(r'vllm:cache_config_info\{.*\bblock_size="(\d+)"', metrics)[0])

    def blocks(num_tokens: int) -> int:
        return num_tokens // block * block

    assert nothing_shared == (600, 0)
    assert before_and_deeper == [(400, 0), (700, blocks(400))]
    assert siblings == (3 * 700, 3 * blocks(700))
    assert at_once == (2 * 2000, blocks(900) + 2 * blocks(400) + 2 * blocks(700))  # all but the first's first
    assert scored == (0, 0)


@pytest.mark.vllm
def test_scores_are_logprobs_of_given_tokens_at_temperature_one(policy_server):
    async def body(client: PolicyClient):
        return await client.score(PROMPT)

    expected = reference_logprobs(policy_server.folder, PROMPT)
    found = policy_server.run(body, temperature=0.6)
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) < 1e-4


@pytest.mark.vllm
def test_new_weights_reach_every_layer_and_the_tied_head_and_the_prefix_cache(policy_server):
    async def body(client: PolicyClient):
        before = await client.sample(PROMPT, num_samples=1, seed=1)  # leaves keys and values of the prompt behind
        await client.update_weights(policy_server.other, 5)
        after = await client.sample(PROMPT, num_samples=1, seed=1)
        worst = await verify_weights(client, expectations(policy_server.other), CLOSE)
        with pytest.raises(ServerError, match="does not have the weights that it was given"):
            await verify_weights(client, expectations(policy_server.folder), CLOSE)
        return before[0], after[0], worst

    before, after, worst = policy_server.run(body)
    assert (before.policy_version, after.policy_version) == (0, 5)
    assert difference(before, policy_server.folder, PROMPT, 1.0) < 1e-4
    assert difference(after, policy_server.other, PROMPT, 1.0) < 1e-4
    assert 0 < worst.largest < 1e-4


@pytest.mark.vllm
def test_a_stale_tied_head_is_caught(policy_server):
    """vLLM's own reload on CPU: it answers 200 and leaves the packed copy of the head as it was."""

    async def body(client: PolicyClient):
        request = {"method": "reload_weights", "kwargs": {"weights_path": str(policy_server.other)}}
        await client.connection.post("/collective_rpc", request)
        with pytest.raises(ServerError, match="does not have the weights"):
            await verify_weights(client, expectations(policy_server.other), NEAR)
        await client.update_weights(policy_server.other, 2)
        await verify_weights(client, expectations(policy_server.other), CLOSE)

    policy_server.run(body)


@pytest.mark.vllm
def test_a_layer_left_out_of_an_update_is_caught(policy_server, tmp_path, monkeypatch):
    skipped = "model.layers.1.mlp.down_proj.weight"
    folder = save_changed(
        tmp_path / "short", policy_server.other, lambda t: {name: t[name] for name in t if name != skipped}
    )

    async def body(client: PolicyClient):
        with pytest.raises(ValueError, match=rf"missing {skipped}; unknown none"):
            await client.update_weights(folder, 2)
        assert (await client.sample(PROMPT, num_samples=1, seed=1))[0].policy_version == 0
        monkeypatch.setattr(client, "check_weights", lambda folder: None)
        await client.update_weights(folder, 2)  # vLLM has no objection
        with pytest.raises(ServerError, match="does not have the weights"):
            await verify_weights(client, expectations(policy_server.other), NEAR)

    policy_server.run(body)


@pytest.mark.vllm
def test_weights_of_another_shape_name_or_kind_are_refused_before_anything_is_sent(policy_server, tmp_path):
    name = "model.layers.0.self_attn.k_proj.weight"
    wrong = {
        r"has shape \(32, 63\)": lambda t: t | {name: t[name][:, :-1].contiguous()},
        "unknown extra.weight": lambda t: t | {"extra.weight": t[name].clone()},
        "is I64": lambda t: t | {name: t[name].long()},
    }

    async def body(client: PolicyClient):
        for index, (message, change) in enumerate(wrong.items()):
            folder = save_changed(tmp_path / str(index), policy_server.other, change)
            with pytest.raises(ValueError, match=message):
                await client.update_weights(folder, 2)
        (tmp_path / "0" / "model.safetensors").write_bytes(b"\x10")
        with pytest.raises(ValueError, match="not a complete safetensors file"):
            await client.update_weights(tmp_path / "0", 2)
        with pytest.raises(ValueError, match="no \\*.safetensors"):
            await client.update_weights(tmp_path, 2)
        assert client.version == 0
        await verify_weights(client, expectations(policy_server.folder), CLOSE)

    policy_server.run(body)


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each tensor by safetensors' NumPy reader, which the server does not use."""
    from safetensors.numpy import load_file

    return {
        name: hashlib.sha256(array.tobytes()).hexdigest()
        for name, array in load_file(folder / "model.safetensors").items()
    }


def canary(folder: Path) -> Canary:
    return Canary(PROMPT[:40], reference_logprobs(folder, PROMPT[:40]), CLOSE)


@pytest.mark.vllm
def test_an_update_that_fails_leaves_the_weights_before(policy_server, tmp_path, monkeypatch):
    """Whatever fails, at every point: the files, their content, the verbs, the proof."""
    name = "model.layers.1.self_attn.q_proj.weight"
    changed = save_changed(tmp_path / "changed", policy_server.other, lambda t: t | {name: t[name] * 1.01})
    short = save_changed(tmp_path / "short", policy_server.other, lambda t: {n: t[n] for n in t if n != name})
    damaged = shutil.copytree(changed, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"\x10")
    known = digests(policy_server.other)

    async def body(client: PolicyClient):
        await client.update_weights(policy_server.folder, 6)
        await client.sample(PROMPT, num_samples=1, seed=1)  # leaves keys and values behind

        async def fails(match: str, folder: Path, **proof: object):
            with pytest.raises(ServerError, match=rf"(?s){match}.*; version 6 is served again"):
                await client.update_weights(folder, 7, **proof)
            (found,) = await client.sample(PROMPT, num_samples=1, seed=1)
            assert (found.policy_version, client.version) == (6, 6)
            assert difference(found, policy_server.folder, PROMPT, 1.0) < 1e-4

        await fails(f"{name} in .* is not the tensor that was sent", changed, digests=known)
        await fails("does not have the weights", changed, canary=canary(policy_server.other))
        with monkeypatch.context() as patch:
            patch.setattr(client, "check_weights", lambda folder: None)
            await fails(f"{name}: sent, but in none of", short, digests=known)
            await fails("update_weights was answered 500", damaged)
            await fails("no \\*.safetensors in", tmp_path)
        post = client.connection.post
        for verb in ("/start_weight_update", "/finish_weight_update", "/reset_prefix_cache"):
            left = [1]

            async def failing(path: str, body: object = None, verb: str = verb, left: list[int] = left):
                if path.startswith(verb) and left:
                    left.clear()
                    raise ServerError(f"{verb} was answered 500")
                return await post(path, body)

            with monkeypatch.context() as patch:
                patch.setattr(client.connection, "post", failing)
                await fails(f"{verb} was answered 500", policy_server.other)
        await client.update_weights(policy_server.other, 8, known, canary(policy_server.other))
        assert (await client.sample(PROMPT, num_samples=1, seed=1))[0].policy_version == 8

    policy_server.run(body)


@pytest.mark.vllm
def test_what_unproven_weights_wrote_is_never_returned(policy_server):
    async def body(client: PolicyClient):
        await client.update_weights(policy_server.folder, 6)
        running = asyncio.create_task(client.sample(PROMPT, num_samples=2, seed=1))
        await asyncio.sleep(0.1)
        assert not running.done()
        with pytest.raises(ServerError, match="version 6 is served again"):
            await client.update_weights(policy_server.other, 7, canary=canary(policy_server.folder))
        with pytest.raises(ServerError, match="weights that failed verification"):
            await running
        await client.update_weights(policy_server.other, 7, canary=canary(policy_server.other))
        assert (await client.sample(PROMPT, num_samples=1, seed=1))[0].policy_version == 7

    policy_server.run(body, max_tokens=600)


@pytest.mark.vllm
def test_nothing_is_sampled_where_the_weights_before_are_gone_too(policy_server, tmp_path, monkeypatch):
    first = save_changed(tmp_path / "first", policy_server.folder, lambda tensors: tensors)
    damaged = shutil.copytree(first, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"\x10")

    async def body(client: PolicyClient):
        await client.update_weights(first, 1)
        shutil.rmtree(first)
        with monkeypatch.context() as patch:
            patch.setattr(client, "check_weights", lambda folder: None)
            with pytest.raises(ServerError, match="version 1 could not be restored.*restart the server"):
                await client.update_weights(damaged, 2)
        assert client.version == 1
        with pytest.raises(ServerError, match="incomplete weights"):
            await client.sample(PROMPT, num_samples=1, seed=1)
        await client.update_weights(policy_server.other, 3)
        await verify_weights(client, expectations(policy_server.other), CLOSE)
        assert (await client.sample(PROMPT, num_samples=1, seed=1))[0].policy_version == 3

    policy_server.run(body)


@pytest.mark.vllm
def test_a_response_in_flight_goes_on_with_new_weights_and_carries_the_older_version(policy_server):
    async def body(client: PolicyClient):
        running = asyncio.create_task(client.sample(PROMPT, num_samples=2, seed=1))
        await asyncio.sleep(0.1)
        assert not running.done()
        await client.update_weights(policy_server.other, 4)
        return await running, await client.sample(PROMPT, num_samples=1, seed=1)

    flying, fresh = policy_server.run(body, max_tokens=600)  # under way for long enough on a busy machine, too
    assert {completion.policy_version for completion in flying} == {0}
    assert fresh[0].policy_version == 4
    lasting = [completion for completion in flying if completion.finish_reason == "length"]
    assert lasting, "one of them did not end before the weights came"
    for completion in lasting:
        expected = reference_logprobs(policy_server.other, [*PROMPT, *completion.token_ids])
        assert math.isclose(completion.logprobs[-1], expected[-1], abs_tol=1e-4)


@pytest.mark.vllm
def test_a_request_the_server_refuses_is_a_server_error_with_its_reason(policy_server):
    async def body(client: PolicyClient):
        with pytest.raises(ServerError, match="answered 400.*maximum"):
            await client.sample(PROMPT * 4, num_samples=1, seed=1)

    policy_server.run(body)


def test_an_address_that_does_not_answer_is_said_at_once():
    address = f"http://127.0.0.1:{free_port()}"

    async def connect():
        async with PolicyClient(address, temperature=1.0, max_tokens=8, stop_ids=[1]):
            pass

    start = time.monotonic()
    with pytest.raises(ValueError, match=f"no policy server at {address}"):
        asyncio.run(connect())
    assert time.monotonic() - start < 5


def test_a_server_that_goes_away_is_a_server_error(monkeypatch):
    async def sample():
        client = PolicyClient(f"http://127.0.0.1:{free_port()}", temperature=1.0, max_tokens=8, stop_ids=[1])
        try:
            await client.sample([1], num_samples=1, seed=0)
        finally:
            await client.close()

    tries = []
    request = httpx.AsyncClient.request

    async def counted(self, *args, **kwargs):
        tries.append(args)
        return await request(self, *args, **kwargs)

    monkeypatch.setattr(httpx.AsyncClient, "request", counted)
    monkeypatch.setattr("rollout.inference.connection._RETRYING.stop", lambda state: state.attempt_number >= 3)
    with pytest.raises(ServerError, match="got no answer"):
        asyncio.run(sample())
    assert len(tries) == 3


def test_greedy_sampling_is_refused():
    with pytest.raises(ValueError, match="temperature=0"):
        PolicyClient("http://127.0.0.1:1", temperature=0.0, max_tokens=8, stop_ids=[1])
