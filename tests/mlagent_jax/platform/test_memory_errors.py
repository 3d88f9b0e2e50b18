"""A device without enough memory: one line names the program, what it needs, the keys to lower and how to check."""

import jax
import jax.numpy as jnp
import pytest

from mlagent_jax.platform.memory_errors import OutOfDeviceMemory, explain, is_out_of_memory, memory_for
from mlagent_jax.train import _explain


@memory_for("policy score", "ppo.rows_per_micro_batch", "ppo.row_length")
def too_large() -> None:
    jax.block_until_ready(jnp.zeros(2**50, jnp.int8))  # the real error: no machine has a PiB


def test_a_program_that_needs_too_much_is_named_with_its_keys_in_one_line() -> None:
    with pytest.raises(OutOfDeviceMemory) as error:
        too_large()
    assert is_out_of_memory(error.value.__cause__ or error.value)
    line, code = _explain(error.value, "runs/mine") or ("", 0)
    assert code == 2 and "\n" not in line
    assert "for the program `policy score`, which asked for 1048576.00 GiB more; lower ppo.rows_per_micro" in line
    for advice in ("ppo.row_length", "model.remat", "mesh.fsdp", "server.memory_fraction", "server.kv_cache_mb"):
        assert advice in line
    assert "`mlagent compile`" in line


def test_elsewhere_it_is_still_one_line() -> None:
    with pytest.raises(RuntimeError) as error:
        jax.block_until_ready(jnp.zeros(2**50, jnp.int8))
    line, code = _explain(error.value, "runs/mine") or ("", 0)
    assert code == 2 and "a program that the traceback in runs/mine/log.txt names" in line


def test_other_errors_of_a_program_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="^a bug$"), memory_for("policy score"):
        raise RuntimeError("a bug")


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 34359738368 bytes.", "asked for 32.00 GiB more"),
        ("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 34.50GiB.", "asked for 34.50 GiB more"),
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 20.50G "
            "of 15.75G hbm. Exceeded hbm capacity by 4.75G.",
            "needs 20.50G of 15.75G",
        ),
        ("RESOURCE_EXHAUSTED: something new", "failed with RESOURCE_EXHAUSTED: something new"),
    ],
)
def test_what_it_needs_is_read_from_the_texts_of_every_platform(text: str, needed: str) -> None:
    assert f"which {needed}" in explain(RuntimeError(text), "the program `sft step`", "sft.max_length")
