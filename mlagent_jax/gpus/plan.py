"""The plan of the GPUs' memory: what lies where, and what to change if it does not fit.

It is made before anything starts. Arrays that stay between steps are counted exactly, and a plan in which they do not
fit is an error. The further memory of a step is an estimate, which alone only warns.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mlagent_jax.configuration.schema import ConfigError, Server
from mlagent_jax.gpus.assignment import Assignment
from mlagent_jax.gpus.server_memory import ServerNeed
from mlagent_jax.gpus.training_memory import Need
from mlagent_jax.gpus.visible import Gpu
from tasks.units import GIB

CONTEXT = 0.4 * GIB  # what CUDA takes for a process that uses a GPU


@dataclass(frozen=True)
class Plan:
    """The text of a plan: its lines, and warnings of what may not fit."""

    lines: tuple[str, ...]
    warnings: tuple[str, ...]


def make_plan(assignment: Assignment, needs: Sequence[Need], serving: ServerNeed, server: Server) -> Plan:
    """Return the plan of a run.

    Args:
        assignment: The GPUs of trainer and server, at least one.
        needs: The memory of each phase of training.
        serving: The memory of the server.
        server: The section `server`.

    Raises:
        ConfigError: If it cannot fit, with the keys to change.
    """
    gpus = {gpu.index: gpu for gpu in (*assignment.trainer, *assignment.server)}
    lines = [_gpu_line(gpu, assignment) for gpu in gpus.values()]
    warnings: list[str] = []
    for gpu in gpus.values():
        warnings += _check_gpu(gpu, assignment)
    if assignment.trainer:
        limit = assignment.trainer_fraction * min(gpu.total for gpu in assignment.trainer)
        for need in needs:
            lines.append(_need_line(need))
            warnings += _check_need(need, limit, assignment)
    if assignment.server:
        limit = assignment.server_fraction * min(gpu.total for gpu in assignment.server)
        lines.append(_server_line(serving, limit))
        warnings += _check_server(serving, limit, server)
    return Plan(tuple(lines), tuple(warnings))


def _gpu_line(gpu: Gpu, assignment: Assignment) -> str:
    shares = ", ".join(f"{name} {_gib(share)}" for name, share in _shares(gpu, assignment))
    used = f", other processes {_gib(gpu.used)}" if gpu.used > CONTEXT else ""
    return f"GPU {gpu.index} ({gpu.name}, {_gib(gpu.total)} GiB): {shares}{used}"


def _shares(gpu: Gpu, assignment: Assignment) -> Iterator[tuple[str, float]]:
    """Yield who uses a GPU, and the memory that it takes there."""
    if gpu in assignment.trainer:
        yield "trainer", assignment.trainer_fraction * gpu.total
    if gpu in assignment.server:
        yield "server", assignment.server_fraction * gpu.total


def _need_line(need: Need) -> str:
    kept = " + ".join(f"{name} {_gib(size)}" for name, size in need.kept.items())
    return f"{need.phase}, GiB per GPU: {kept} + activations and gradients about {_gib(need.step)}"


def _server_line(serving: ServerNeed, limit: float) -> str:
    cache = max(0.0, limit - serving.weights - serving.other) if serving.cache is None else serving.cache
    tokens = f"{int(cache / serving.token / 1000)},000 tokens"
    about = "about " if serving.cache is None else ""
    return (
        f"server, GiB per GPU: weights {_gib(serving.weights)} + cache {about}{_gib(cache)} ({tokens}) + other about "
        f"{_gib(serving.other)}"
    )


def _check_gpu(gpu: Gpu, assignment: Assignment) -> Iterator[str]:
    shares = list(_shares(gpu, assignment))
    taken, free = sum(share for _, share in shares), gpu.total - gpu.used
    keys = " or ".join(f"{name}.memory_fraction" for name, _ in shares)
    if taken > (gpu.total if gpu.used <= CONTEXT else free):
        takers = f"{' and '.join(name for name, _ in shares)} take{'s' if len(shares) == 1 else ''}"
        others = f", of which other processes use {_gib(gpu.used)}" if gpu.used > CONTEXT else ""
        raise ConfigError(
            f"GPU {gpu.index} has {_gib(gpu.total)} GiB{others}, and {takers} {_gib(taken)}; lower {keys}, or use "
            "other GPUs (trainer.gpus, server.gpus)"
        )
    if taken + len(shares) * CONTEXT > free:
        yield f"GPU {gpu.index}: {_gib(free - taken)} GiB are left for CUDA itself; if a start fails, lower {keys}"


def _check_need(need: Need, limit: float, assignment: Assignment) -> Iterator[str]:
    kept = sum(need.kept.values())
    share = "lower server.memory_fraction, " if assignment.is_shared else ""
    if kept > limit:
        largest = max(need.kept, key=lambda name: need.kept[name])
        offload = "set optimizer_state.offload=true or " if need.kept.get("moments") else ""
        critic = "set ppo.critic=shared, " if need.kept.get("critic") else ""
        raise ConfigError(
            f"{need.phase} keeps {_gib(kept)} GiB on each GPU, most of it {largest} ({_gib(need.kept[largest])}), and "
            f"the trainer has {_gib(limit)}; {critic}{share}raise mesh.fsdp, {offload}take a smaller model"
        )
    if need.total > limit:
        key = "sft.rows_per_micro_batch or sft.max_length" if need.phase == "fine-tuning" else "ppo.row_length"
        yield (
            f"{need.phase} may need {_gib(need.total)} GiB on each GPU, and the trainer has {_gib(limit)}; if it runs "
            f"out of memory, {share}lower {key}, or raise mesh.fsdp"
        )


def _check_server(serving: ServerNeed, limit: float, server: Server) -> Iterator[str]:
    smallest = max(serving.smallest_cache, serving.cache or 0.0)
    key = "server.max_model_len" if serving.cache is None else "server.kv_cache_mb"
    raising = "raise server.memory_fraction or server.tensor_parallel"
    if serving.cache is not None and serving.cache < serving.smallest_cache:
        raise ConfigError(
            f"server.kv_cache_mb={server.kv_cache_mb} does not hold one request of server.max_model_len="
            f"{server.max_model_len} tokens, which takes {_gib(serving.smallest_cache)} GiB; raise it"
        )
    if serving.weights + smallest > limit:
        raise ConfigError(
            f"the server's weights take {_gib(serving.weights)} GiB and its cache at least {_gib(smallest)} on each "
            f"GPU, and it has {_gib(limit)}; {raising}, or lower {key}"
        )
    if serving.weights + smallest + serving.other > limit:
        yield (
            f"the server may need {_gib(serving.weights + smallest + serving.other)} GiB on each GPU, and it has "
            f"{_gib(limit)}; if it does not start, {raising}, or lower {key}"
        )


def _gib(size: float) -> str:
    return f"{size / GIB:.1f}"
