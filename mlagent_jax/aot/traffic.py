"""Bytes that single instructions move: through the HBM of a device, and to other devices.

- HBM bytes of an instruction are the operands it reads and the results it writes that lie in HBM, each once, without
  padding; of an array that is only sliced, gathered from or updated in place, only the part that is touched.
- Collective bytes are what one device sends when a ring carries the collective out among n of them: all-gather (n - 1)
  times its operand, reduce-scatter and all-to-all (n - 1)/n times the operand, all-reduce twice that,
  collective-permute the operand.
"""

import math
import re
from collections.abc import Iterator

from mlagent_jax.aot.hlo import HBM_SPACE, Computation, Instruction, Module, Shape

COLLECTIVES = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")
SLICES = ("dynamic-slice", "slice", "gather")
# The TPU compiler lets a collective run beside other work as a chain of fusions: one that starts it, some that carry it
# along, one that ends it. Each holds the collective anew; the first is the one that counts.
CHAIN, CHAIN_START = "chain_id=", "AsyncCollectiveStart"


def collective(module: Module, computation: Computation, instruction: Instruction) -> tuple[str | None, float]:
    """Return the kind of collective that an instruction is or holds, None for none, and the bytes a device sends."""
    kind, total = None, 0.0
    for inner, each in _held(module, computation, instruction):
        name = each.opcode.removesuffix("-start")
        if name not in COLLECTIVES or (CHAIN in each.attributes and not _starts_chain(inner)):
            continue
        kind = "reduce-scatter" if inner.name.startswith("all-reduce-scatter") else name  # a fusion with that meaning
        total += _share_sent(kind, _group_size(module, each)) * sum(o.num_bytes for o in inner.operands(each))
    return kind, total


def _held(
    module: Module, computation: Computation, instruction: Instruction
) -> Iterator[tuple[Computation, Instruction]]:
    """Yield the instruction, or where it is a fusion those that it holds, each with its computation."""
    if instruction.opcode != "fusion":
        yield computation, instruction
        return
    inner = module.computations[instruction.called("calls") or ""]
    for each in inner.instructions.values():
        yield from _held(module, inner, each)


def _starts_chain(computation: Computation) -> bool:
    return any(CHAIN_START in each.attributes for each in computation.instructions.values())


def _share_sent(kind: str, devices: int) -> float:
    return {
        "all-gather": devices - 1.0,
        "all-reduce": 2 * (devices - 1) / devices,
        "collective-permute": 1.0,
    }.get(kind, (devices - 1) / devices)


def _group_size(module: Module, instruction: Instruction) -> int:
    """Return n, how many devices take part together, from any of the three ways XLA writes groups."""
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}", instruction.attributes)
    if mesh is not None:
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh[2])  # an axis, or 'axis':(before)size for a part of one
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    listed = instruction.attribute(r"replica_groups=\[\d+,(\d+)\]<=")
    if listed is not None:
        return int(listed)
    first = instruction.attribute(r"replica_groups=\{\{([\d,]+)\}")
    return module.num_devices if first is None else len(first.split(","))


def hbm_bytes(module: Module, computation: Computation, instruction: Instruction) -> float:
    """Return the bytes that one run of an instruction reads from and writes to HBM."""
    operands = computation.operands(instruction)
    opcode = instruction.opcode
    if opcode == "fusion":
        inner = module.computations[instruction.called("calls") or ""]
        reads = [min(_touched(module, inner, inner.parameter(i).name), o.num_bytes) for i, o in enumerate(operands)]
        writes = _written(inner)
    elif opcode in ("copy-start", "slice-start"):  # from one memory to another: both stand in the result
        ends = instruction.shapes[:2]
        return float(min(end.num_bytes for end in ends) * sum(end.space == HBM_SPACE for end in ends))
    elif opcode in SLICES or opcode in ("dynamic-update-slice", "scatter"):
        part = _part(computation, instruction)
        reads, writes = [part] + [o.num_bytes for o in operands[1:]], [part]
    else:
        reads, writes = [o.num_bytes for o in operands], [shape.num_bytes for shape in instruction.shapes]
    read = sum(size for size, operand in zip(reads, operands, strict=True) if _in_hbm(operand.shapes))
    return float(read + sum(size for size, shape in zip(writes, instruction.shapes, strict=True) if _in_hbm([shape])))


def _in_hbm(shapes: list[Shape] | tuple[Shape, ...]) -> bool:
    return bool(shapes) and shapes[0].space == HBM_SPACE


def _part(computation: Computation, instruction: Instruction) -> int:
    """Return the size of what a slice takes, or of what an update in place brings."""
    if instruction.opcode in SLICES:
        return instruction.num_bytes
    return computation.operands(instruction)[1 if instruction.opcode == "dynamic-update-slice" else 2].num_bytes


def _touched(module: Module, computation: Computation, name: str) -> float:
    """Return how much of the array `name` is read inside a fusion."""
    total = 0.0
    for user in computation.users(name):
        first = user.operands[0] == name
        if user.opcode == "bitcast":
            total += _touched(module, computation, user.name)
        elif user.opcode == "fusion":
            inner = module.computations[user.called("calls") or ""]
            total += _touched(module, inner, inner.parameter(user.operands.index(name)).name)
        elif user.opcode in SLICES and first:
            total += user.num_bytes
        elif user.opcode == "tuple" or (user.opcode == "dynamic-update-slice" and first) or _carried(computation, user):
            continue
        else:
            return math.inf
    return total


def _written(computation: Computation) -> list[float]:
    """Return the bytes written of each result of a fusion."""
    root = computation.instructions[computation.root]
    sizes: list[float] = []
    for result in computation.operands(root) if root.opcode == "tuple" else [root]:
        source = result
        while source.opcode == "bitcast":
            source = computation.operands(source)[0]
        if source.opcode in ("dynamic-update-slice", "scatter"):
            sizes.append(_part(computation, source))
        elif source.opcode == "parameter" or _carried(computation, source):
            sizes.append(0.0)
        else:
            sizes += [shape.num_bytes for shape in result.shapes]
    return sizes


def _carried(computation: Computation, instruction: Instruction) -> bool:
    """Return whether a fusion only carries this collective along."""
    return CHAIN in instruction.attributes and not _starts_chain(computation)
