"""The setting to change first so that a program fits."""

from mlagent_jax.aot.chips import Chip
from mlagent_jax.aot.programs import LENGTH_KEYS, Program
from mlagent_jax.aot.shards import shard_bytes
from mlagent_jax.model.transformer import Remat
from tasks.units import GIB


def remedy(program: Program, chip: Chip, remat: Remat, missing: float, server: int) -> str:
    """Return the setting to change first.

    Args:
        program: The program that does not fit.
        chip: The chip.
        remat: The key `model.remat`.
        missing: The bytes that a chip lacks; infinite if they are not known.
        server: The bytes of the policy server that shares the chip.
    """
    if missing <= server:
        return (
            f"{server / GIB:.1f} GiB are the policy server's: lower server.kv_cache_mb or server.memory_fraction, or "
            "name other GPUs in server.gpus"
        )
    state = shard_bytes((program.arguments, program.resident))[0]
    if state > chip.usable_bytes / 2 or program.rows_key is None:
        return f"{state / GIB:.1f} GiB are parameters and optimizer state: {_smaller_state(program, missing)}"
    if remat != "layer":
        return "set model.remat=layer"
    if program.rows_key in LENGTH_KEYS:
        return f"lower {program.rows_key}, or raise mesh.tensor on a larger topology so that chips share a row"
    return f"lower {program.rows_key}, or raise mesh.fsdp on a larger topology so that a chip has fewer rows"


def _smaller_state(program: Program, missing: float) -> str:
    """Return the settings each of which alone saves enough."""
    ways = ["raise mesh.fsdp on a larger topology"]
    critic, moments = shard_bytes(program.critic)[0], shard_bytes(program.moments)[0]
    if critic >= missing:
        ways.append(f"set ppo.critic=shared ({critic / GIB:.1f} GiB)")
    if moments >= missing:
        ways.append(f"set optimizer_state.offload=true ({moments / GIB:.1f} GiB)")
    return ", or ".join(ways)
