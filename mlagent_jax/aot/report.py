"""One program compiled, and what is to be said about it."""

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
from mlagent_jax.model.qwen2 import Remat

HOST_KINDS = ("pinned_host", "unpinned_host")


@dataclass(frozen=True)
class Memory:
    """Bytes on each chip, and on the host for each chip.

    Attributes:
        arguments: of the program.
        temporaries: what it holds only while it runs, its code included.
        outputs: results that do not take the place of an argument.
        beside: arrays of the run that lie on the chip and are no argument.
        peak: all of them at the same time.
        host: arguments, temporaries, outputs and arrays beside that lie in the host's memory.
    """

    arguments: int
    temporaries: int
    outputs: int
    beside: int
    peak: int
    host: int


@dataclass(frozen=True)
class Report:
    """A program on one chip of a slice.

    Attributes:
        memory: None where the compiler gave up; all it says then is in `verdict`.
        roofline: None then too.
        verdict: whether it fits, in words.
        remedy: what to change so that it does; None where it fits.
    """

    program: str
    memory: Memory | None
    roofline: Roofline | None
    verdict: str
    remedy: str | None


def report(program: Program, chip: Chip, num_chips: int, remat: Remat) -> Report:
    """Return the report of a program, which is compiled for the devices that its arguments name."""
    beside, beside_host = shard_bytes(program.beside)
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
    host += stats.host_output_size_in_bytes - stats.host_alias_size_in_bytes + beside_host
    peak = stats.argument_size_in_bytes + temporaries + outputs + beside
    memory = Memory(stats.argument_size_in_bytes, temporaries, outputs, beside, peak, host)
    fits = peak <= chip.hbm_bytes
    return Report(
        program=program.name,
        memory=memory,
        roofline=roofline(costs(parse(text)), chip, program.model_flops / num_chips),
        verdict=f"{'fits' if fits else 'does not fit'}: {peak / GIB:.1f} of {chip.hbm_bytes / GIB:.0f} GiB",
        remedy=None if fits else remedy(program, chip, remat),
    )


def compile_program(program: Program) -> tuple[jax.stages.Compiled, str]:
    """Return the compiled program and its text after all optimisations.

    The text is what the compiler itself prints into a file: `Compiled.as_text` reads the module with the parser of
    another XLA than the one that wrote it, which fails on some instructions of libtpu's. What the compiler takes out of
    a program to compile it apart has files of other names.
    """
    with tempfile.TemporaryDirectory(prefix="mlagent_jax_hlo_") as folder:
        lowered = program.function.lower(*program.arguments)  # pyright: ignore[reportFunctionMemberAccess]
        compiled = lowered.compile(compiler_options={"xla_dump_to": folder, "xla_dump_hlo_as_text": True})
        (text,) = Path(folder).glob("*.jit_*after_optimizations.txt")
        return compiled, text.read_text()


def shard_bytes(tree: PyTree) -> tuple[int, int]:
    """Return the bytes that one device holds of abstract arrays, in its memory and in the host's."""
    on_device = on_host = 0
    for leaf in (leaf for leaf in jax.tree.leaves(tree) if leaf.sharding is not None):  # all but single numbers
        size = math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        on_host += size if leaf.sharding.memory_kind in HOST_KINDS else 0
        on_device += 0 if leaf.sharding.memory_kind in HOST_KINDS else size
    return on_device, on_host


def exhausted(message: str) -> str:
    """Return the compiler's own figures out of its complaint that a program does not fit."""
    sizes = re.findall(r"([\d.]+)\s?([KMGT])i?B?\b", message)
    if len(sizes) < 2:
        return f"does not fit: {message.strip().splitlines()[0][:200]}"
    (need, unit), (have, of) = sizes[:2]
    return f"does not fit: the compiler needs {need} {unit}iB and has {have} {of}iB"


def remedy(program: Program, chip: Chip, remat: Remat) -> str:
    """Return the setting to change first so that a program takes less memory."""
    state = sum(shard_bytes((program.arguments, program.beside))[:1])
    if state > chip.hbm_bytes / 2 or program.rows_key is None:
        return f"{state / GIB:.1f} GiB are parameters and optimizer state: raise mesh.fsdp on a larger topology"
    if remat != "layer":
        return "set model.remat=layer"
    return f"lower {program.rows_key}, or raise mesh.fsdp on a larger topology so that a chip has fewer rows"
