"""Bytes that single instructions move, through the HBM of a device and to other devices.

- HBM bytes of an instruction are the operands that it reads and the results that it writes in HBM, each once, without
  padding. If an array is only sliced, gathered from or updated in place, only the accessed part counts. A collective of
  a GPU has none, because it runs beside the other instructions.
- Collective bytes are the bytes that one device sends in a ring of n devices: for an all-gather, n - 1 times the
  operand; for a reduce-scatter or all-to-all, (n - 1)/n times the operand; for an all-reduce, twice that; for a
  collective-permute, the operand.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from mlagent_jax.aot.groups import Groups, groups_of
from mlagent_jax.aot.hlo import HBM_SPACE, Computation, Instruction, Module, Shape

COLLECTIVES = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")
ON_GPU = "collective_backend_config"  # an attribute of the collectives of GPUs
SLICES = ("dynamic-slice", "slice", "gather")
# The TPU compiler overlaps a collective with other work as a chain of fusions: the first starts it, the next ones pass
# it on, and the last ends it. Each contains the collective again; only the first counts.
CHAIN, CHAIN_START = "chain_id=", "AsyncCollectiveStart"


@dataclass(frozen=True)
class Sent:
    """The traffic of a collective.

    Attributes:
        kind: The kind of collective.
        num_bytes: The bytes that one device sends.
        groups: The devices that exchange data with each other.
        overlaps: Whether other instructions run between its start and its end.
    """

    kind: str
    num_bytes: float
    groups: Groups
    overlaps: bool


def collective(module: Module, computation: Computation, instruction: Instruction) -> Sent | None:
    """Return what the collective in an instruction sends, or None if there is no collective in it."""
    found: Sent | None = None
    for inner, part in _parts(module, computation, instruction):
        name = part.opcode.removesuffix("-start")
        if name not in COLLECTIVES or (CHAIN in part.attributes and not _starts_chain(inner)):
            continue
        kind = "reduce-scatter" if inner.name.startswith("all-reduce-scatter") else name  # a fusion that stands for one
        groups = groups_of(part, module.num_devices)
        sent = _share_sent(kind, len(groups[0])) * sum(operand.num_bytes for operand in inner.operands(part))
        found = Sent(kind, sent + (found.num_bytes if found else 0.0), groups, runs_beside(part))
    return found


def runs_beside(collective: Instruction) -> bool:
    """Return whether a collective, or the start of one, lets other instructions run until its end."""
    starts = collective.opcode.endswith("-start") and '"is_sync":true' not in collective.attributes
    return starts or CHAIN in collective.attributes


def _parts(
    module: Module, computation: Computation, instruction: Instruction
) -> Iterator[tuple[Computation, Instruction]]:
    """Yield the instruction, or the instructions in a fusion, each with its computation."""
    if instruction.opcode != "fusion":
        yield computation, instruction
        return
    inner = module.computations[instruction.called("calls") or ""]
    for part in inner.instructions.values():
        yield from _parts(module, inner, part)


def _starts_chain(computation: Computation) -> bool:
    return any(CHAIN_START in part.attributes for part in computation.instructions.values())


def _share_sent(kind: str, devices: int) -> float:
    return {
        "all-gather": devices - 1.0,
        "all-reduce": 2 * (devices - 1) / devices,
        "collective-permute": 1.0,
    }.get(kind, (devices - 1) / devices)


def hbm_bytes(module: Module, computation: Computation, instruction: Instruction) -> float:
    """Return the bytes that one execution of an instruction reads from and writes to HBM."""
    operands = computation.operands(instruction)
    opcode = instruction.opcode
    if ON_GPU in instruction.attributes:
        return 0.0
    if opcode == "fusion":
        inner = module.computations[instruction.called("calls") or ""]
        reads = [min(_bytes_read(module, inner, inner.parameter(i).name), o.num_bytes) for i, o in enumerate(operands)]
        writes = _written(inner)
    elif opcode in ("copy-start", "slice-start"):  # from one memory to another; the result has both
        ends = instruction.shapes[:2]
        return float(min(end.num_bytes for end in ends) * sum(end.space == HBM_SPACE for end in ends))
    elif opcode in SLICES or opcode in ("dynamic-update-slice", "scatter"):
        part = _slice_bytes(computation, instruction)
        reads, writes = [part] + [o.num_bytes for o in operands[1:]], [part]
    else:
        reads, writes = [o.num_bytes for o in operands], [shape.num_bytes for shape in instruction.shapes]
    read = sum(size for size, operand in zip(reads, operands, strict=True) if _in_hbm(operand.shapes))
    return float(read + sum(size for size, shape in zip(writes, instruction.shapes, strict=True) if _in_hbm([shape])))


def _in_hbm(shapes: list[Shape] | tuple[Shape, ...]) -> bool:
    return bool(shapes) and shapes[0].space == HBM_SPACE


def _slice_bytes(computation: Computation, instruction: Instruction) -> int:
    """Return the bytes that a slice reads or an in-place update writes."""
    if instruction.opcode in SLICES:
        return instruction.num_bytes
    return computation.operands(instruction)[1 if instruction.opcode == "dynamic-update-slice" else 2].num_bytes


def _bytes_read(module: Module, computation: Computation, name: str) -> float:
    """Return the number of bytes of the array `name` that are read inside a fusion."""
    total = 0.0
    for user in computation.users(name):
        is_first = user.operands[0] == name
        if user.opcode == "bitcast":
            total += _bytes_read(module, computation, user.name)
        elif user.opcode == "fusion":
            inner = module.computations[user.called("calls") or ""]
            total += _bytes_read(module, inner, inner.parameter(user.operands.index(name)).name)
        elif user.opcode in SLICES and is_first:
            total += user.num_bytes
        elif (
            user.opcode == "tuple"
            or (user.opcode == "dynamic-update-slice" and is_first)
            or _passed_on(computation, user)
        ):
            continue
        else:
            return math.inf
    return total


def _written(computation: Computation) -> list[float]:
    """Return the bytes written for each result of a fusion."""
    root = computation.instructions[computation.root]
    sizes: list[float] = []
    for result in computation.operands(root) if root.opcode == "tuple" else [root]:
        source = result
        while source.opcode == "bitcast":
            source = computation.operands(source)[0]
        if source.opcode in ("dynamic-update-slice", "scatter"):
            sizes.append(_slice_bytes(computation, source))
        elif source.opcode == "parameter" or _passed_on(computation, source):
            sizes.append(0.0)
        else:
            sizes += [shape.num_bytes for shape in result.shapes]
    return sizes


def _passed_on(computation: Computation, instruction: Instruction) -> bool:
    """Return whether a fusion only passes this collective on."""
    return CHAIN in instruction.attributes and not _starts_chain(computation)
