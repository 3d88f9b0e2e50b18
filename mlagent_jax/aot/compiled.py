"""Compile a program and report its memory, its time and whether it fits."""

import math
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jaxtyping import PyTree

from mlagent_jax.aot.chips import GIB, Chip
from mlagent_jax.aot.cost import costs
from mlagent_jax.aot.hlo import parse
from mlagent_jax.aot.programs import Program
from mlagent_jax.aot.roofline import Roofline, roofline
from mlagent_jax.model.transformer import Remat

HOST_KINDS = ("pinned_host", "unpinned_host")


@dataclass(frozen=True)
class Memory:
    """Bytes on each chip, and on the host per chip.

    Attributes:
        arguments: The arguments of the program.
        temporaries: The arrays that exist only while it runs, and its code.
        outputs: The results that do not reuse the memory of an argument.
        resident: The arrays of the run that stay on the chip and are not arguments.
        peak: The sum of all of them.
        host: The arguments, temporaries, outputs and resident arrays in the memory of the host.
    """

    arguments: int
    temporaries: int
    outputs: int
    resident: int
    peak: int
    host: int


@dataclass(frozen=True)
class Report:
    """A program on one chip of a slice.

    Attributes:
        program: The name of the program.
        memory: The memory that it needs; None if the compiler ran out of memory for it, which `verdict` then states.
        roofline: The bounds on its time; None in the same case.
        verdict: Whether it fits, in words.
        remedy: The setting to change so that it fits; None if it fits.
    """

    program: str
    memory: Memory | None
    roofline: Roofline | None
    verdict: str
    remedy: str | None


def report_program(program: Program, chip: Chip, num_chips: int, remat: Remat) -> Report:
    """Compile a program for the devices of its arguments and return the report."""
    resident, resident_host = shard_bytes(program.resident)
    try:
        compiled, text = compile_program(program)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error) or "hbm" not in str(error).lower():
            raise
        return Report(program.name, None, None, exhausted(str(error)), remedy(program, chip, remat))
    stats: Any = compiled.memory_analysis()
    outputs = stats.output_size_in_bytes - stats.alias_size_in_bytes
    temporaries = stats.temp_size_in_bytes + stats.generated_code_size_in_bytes
    host = stats.host_argument_size_in_bytes + stats.host_temp_size_in_bytes
    host += stats.host_output_size_in_bytes - stats.host_alias_size_in_bytes + resident_host
    peak = stats.argument_size_in_bytes + temporaries + outputs + resident
    memory = Memory(stats.argument_size_in_bytes, temporaries, outputs, resident, peak, host)
    fits = peak <= chip.hbm_bytes
    return Report(
        program=program.name,
        memory=memory,
        roofline=roofline(costs(parse(text)), chip, program.model_flops / num_chips),
        verdict=f"{'fits' if fits else 'does not fit'}: {peak / GIB:.1f} of {chip.hbm_bytes / GIB:.0f} GiB",
        remedy=None if fits else remedy(program, chip, remat),
    )


def compile_program(program: Program) -> tuple[jax.stages.Compiled, str]:
    """Return the compiled program and its text after all optimizations.

    The text is the compiler's own dump. `Compiled.as_text` parses the module with another version of XLA than the one
    that wrote it, which fails on some instructions of libtpu. Parts that the compiler compiles separately are dumped
    into files with other names.
    """
    with tempfile.TemporaryDirectory(prefix="mlagent_jax_hlo_") as folder:
        lowered = program.function.lower(*program.arguments)  # pyright: ignore[reportFunctionMemberAccess]
        compiled = lowered.compile(compiler_options={"xla_dump_to": folder, "xla_dump_hlo_as_text": True})
        (text,) = Path(folder).glob("*.jit_*after_optimizations.txt")
        return compiled, text.read_text()


def shard_bytes(tree: PyTree) -> tuple[int, int]:
    """Return the bytes of abstract arrays that one device holds, in its own memory and in the memory of the host."""
    on_device = on_host = 0
    for leaf in (leaf for leaf in jax.tree.leaves(tree) if leaf.sharding is not None):  # scalars have no sharding
        size = math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        on_host += size if leaf.sharding.memory_kind in HOST_KINDS else 0
        on_device += 0 if leaf.sharding.memory_kind in HOST_KINDS else size
    return on_device, on_host


def exhausted(message: str) -> str:
    """Return the sizes in the error message of the compiler for a program that does not fit."""
    sizes = re.findall(r"([\d.]+)\s?([KMGT])i?B?\b", message)
    if len(sizes) < 2:
        return f"does not fit: {message.strip().splitlines()[0][:200]}"
    (need, need_unit), (have, have_unit) = sizes[:2]
    return f"does not fit: the compiler needs {need} {need_unit}iB and has {have} {have_unit}iB"


def remedy(program: Program, chip: Chip, remat: Remat) -> str:
    """Return the setting to change first so that a program needs less memory."""
    state = sum(shard_bytes((program.arguments, program.resident))[:1])
    if state > chip.hbm_bytes / 2 or program.rows_key is None:
        return f"{state / GIB:.1f} GiB are parameters and optimizer state: raise mesh.fsdp on a larger topology"
    if remat != "layer":
        return "set model.remat=layer"
    return f"lower {program.rows_key}, or raise mesh.fsdp on a larger topology so that a chip has fewer rows"
