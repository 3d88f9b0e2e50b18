"""Compile a program and report its memory, its time and whether it fits."""

import math
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax

from mlagent_jax.aot import gpu_compiler
from mlagent_jax.aot.chips import Chip
from mlagent_jax.aot.cost import costs
from mlagent_jax.aot.hlo import parse
from mlagent_jax.aot.kernels import require_code
from mlagent_jax.aot.programs import Program
from mlagent_jax.aot.remedy import remedy
from mlagent_jax.aot.roofline import Roofline, roofline
from mlagent_jax.aot.shards import shard_bytes
from mlagent_jax.model.transformer import Remat
from tasks.units import GIB


@dataclass(frozen=True)
class Memory:
    """Bytes on each chip, and on the host per chip.

    Attributes:
        arguments: The arguments of the program.
        temporaries: The arrays that exist only while it runs, and its code.
        outputs: The results that do not reuse the memory of an argument.
        resident: The arrays of the run that stay on the chip and are not arguments.
        server: The memory of the policy server on a chip that it shares.
        peak: The sum of all of them.
        host: The arguments, temporaries, outputs and resident arrays in the memory of the host.
    """

    arguments: int
    temporaries: int
    outputs: int
    resident: int
    server: int
    peak: int
    host: int


@dataclass(frozen=True)
class Report:
    """A program on one chip of a topology.

    Attributes:
        program: The name of the program.
        memory: The memory that it needs; None if the compiler ran out of memory for it, which `verdict` then states.
        roofline: The bounds on its time; None in the same case.
        kernels: The kernels of ours for which there is generated code; on a TPU it is not told apart, and this is
            empty.
        verdict: Whether it fits, in words.
        remedy: The setting to change so that it fits; None if it fits.
    """

    program: str
    memory: Memory | None
    roofline: Roofline | None
    kernels: tuple[str, ...]
    verdict: str
    remedy: str | None


class CompiledProgram(NamedTuple):
    """The result of compiling a program.

    Attributes:
        stats: XLA's account of its memory.
        text: The module after all optimizations.
        code: The parts of the generated code for an NVIDIA GPU, as assembler text; empty for other devices.
    """

    stats: Any
    text: str
    code: tuple[str, ...]


def report_program(program: Program, chip: Chip, remat: Remat, hosts: Sequence[int], server: int = 0) -> Report:
    """Compile a program for the devices of its arguments and return the report.

    Args:
        program: The program.
        chip: The chip that the devices are.
        remat: The key `model.remat`.
        hosts: The host of each device.
        server: The bytes of the policy server that shares a chip.
    """
    try:
        stats, text, code = compile_program(program)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error) or "hbm" not in str(error).lower():
            raise
        advice = remedy(program, chip, remat, math.inf, server)
        return Report(program.name, None, None, (), exhausted(str(error)), advice)
    memory, module = memory_of(program, stats, server), parse(text)
    missing, usable = memory.peak - chip.usable_bytes, f"{chip.usable_bytes / GIB:.0f}"
    return Report(
        program=program.name,
        memory=memory,
        roofline=roofline(costs(module), chip, program.model_flops / len(hosts), hosts),
        kernels=require_code(module, code),
        verdict=f"{'does not fit' if missing > 0 else 'fits'}: {memory.peak / GIB:.1f} of {usable} GiB",
        remedy=remedy(program, chip, remat, missing, server) if missing > 0 else None,
    )


def memory_of(program: Program, stats: Any, server: int = 0) -> Memory:
    """Return the memory of a compiled program.

    Args:
        program: The program.
        stats: XLA's account of it; see `compile_program`.
        server: The bytes of the policy server that shares a chip.
    """
    resident, resident_host = shard_bytes(program.resident)
    outputs = stats.output_size_in_bytes - stats.alias_size_in_bytes
    temporaries = stats.temp_size_in_bytes + stats.generated_code_size_in_bytes
    host = stats.host_argument_size_in_bytes + stats.host_temp_size_in_bytes
    host += stats.host_output_size_in_bytes - stats.host_alias_size_in_bytes + resident_host
    peak = stats.argument_size_in_bytes + temporaries + outputs + resident + server
    return Memory(stats.argument_size_in_bytes, temporaries, outputs, resident, server, peak, host)


def compile_program(program: Program) -> CompiledProgram:
    """Compile a program for the devices of its arguments.

    The text of the module is the compiler's own dump. `Compiled.as_text` parses the module with another version of XLA
    than the one that wrote it, which fails on some instructions of libtpu. Parts that the compiler compiles separately
    are dumped into files with other names.
    """
    with tempfile.TemporaryDirectory(prefix="mlagent_jax_hlo_") as folder:
        options: dict[str, Any] = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
        function: Any = program.function
        lowered = function.lower(*program.arguments)
        if _platform(program) == "cuda":
            options |= gpu_compiler.compiler_options()
        compiled = lowered.compile(compiler_options=options)
        (text,) = Path(folder).glob("*.jit_*after_optimizations.txt")
        code = tuple(path.read_text() for path in sorted(Path(folder).glob("*.ptx")))
        return CompiledProgram(compiled.memory_analysis(), text.read_text(), code)


def exhausted(message: str) -> str:
    """Return the sizes in the error message of the compiler for a program that does not fit."""
    sizes = re.findall(r"([\d.]+)\s?([KMGT])i?B?\b", message)
    if len(sizes) < 2:
        return f"does not fit: {message.strip().splitlines()[0][:200]}"
    (need, need_unit), (have, have_unit) = sizes[:2]
    return f"does not fit: the compiler needs {need} {need_unit}iB and has {have} {have_unit}iB"


def _platform(program: Program) -> str:
    """Return the platform of the devices that a program is compiled for."""
    sharded = (leaf for leaf in jax.tree.leaves(program.arguments) if leaf.sharding is not None)
    return next(iter(next(sharded).sharding.device_set)).platform
