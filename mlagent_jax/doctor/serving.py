"""The check of the policy server: it starts, takes new weights, and computes what the trainer computes."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

from jax.sharding import Mesh

from mlagent_jax.configuration.schema import Config, Server
from mlagent_jax.doctor.tiny import CONTEXT, TINY_RANK, adapted, tiny_model, write_tokenizer
from mlagent_jax.gpus.assignment import Assignment
from mlagent_jax.model.hf import save_hf
from mlagent_jax.multihost import distributed
from mlagent_jax.run.policy_server import PolicyServer, check_server, connect
from mlagent_jax.stages.ppo_training import make_sync
from mlagent_jax.training.saved_policy import canary_logprobs
from mlagent_jax.weight_sync import transfer_bytes
from rollout.inference.agreement import difference
from rollout.inference.transfer_folder import transfer_folder
from rollout.runtime.event_loop import EventLoopThread

CACHE_MB = 256


def check_serving(config: Config, mesh: Mesh, assignment: Assignment) -> str:
    """Start the policy server on a tiny network and send it another; of a server elsewhere, check what it says.

    Raises:
        ValueError: If none can start here, or the one at `server.address` is another than this run expects.
        ServerError: If it does not start, does not take the weights, or computes something else.
    """
    if config.server.address is not None:
        check_server(config.server, config.served_rank)
        return f"{config.server.address} answers and has the expected settings"
    if not distributed.is_alone():
        return "not tried by several processes; start doctor on the host of process 0 alone"
    server = replace(config.server, max_model_len=CONTEXT, kv_cache_mb=CACHE_MB)
    with tempfile.TemporaryDirectory(prefix="mlagent_doctor_") as folder:
        return _serve(config, server, mesh, assignment, Path(folder))


def _serve(config: Config, server: Server, mesh: Mesh, assignment: Assignment, folder: Path) -> str:
    """Serve one network, send the weights of another, and compare log-probabilities."""
    model = folder / "model"
    eos_token_id, prompt = write_tokenizer(model)
    first, second = (
        tiny_model(mesh, config.model.dtype, seed=seed, parts=server.tensor_parallel, eos_token_id=eos_token_id)
        for seed in (0, 1)
    )
    save_hf(first, model)
    if config.served_rank:
        second = adapted(first, min(config.served_rank, TINY_RANK))
    check_server(server, config.served_rank)
    began = time.monotonic()
    with (
        PolicyServer(server, folder / "server.log", folder, assignment, config.served_rank) as served,
        EventLoopThread() as event_loop,
        transfer_folder(folder, transfer_bytes(first.config, server.dtype)) as transfer,
    ):
        served.launch(model)
        with connect(served, event_loop, 1.0, 8, [eos_token_id]) as client:
            started = time.monotonic()
            sync = make_sync(server, config.model.dtype, client, transfer / "weights", prompt)
            sync.send(event_loop, second, 1)  # raises unless the server's log-probabilities agree
            sent = time.monotonic()
            found = difference(canary_logprobs(second, prompt), event_loop.run(client.score(prompt)))
            (response,) = event_loop.run(client.sample(prompt, num_samples=1, seed=0))
    return (
        f"started in {started - began:.0f} s; took other weights in {sent - started:.1f} s; its log-probabilities "
        f"differ from the trainer's by {found.mean:.1g} nats per token on average, at most {found.largest:.1g}; wrote "
        f"{len(response.token_ids)} tokens"
    )
