"""Parse the text of a compiled module into computations and instructions, and count the trips of its loops."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

HBM_SPACE = 0  # for arrays without S(n) in their layout; 1 is the vector memory of a TPU, 5 the host
ITEM_BITS = {"pred": 8, "bf16": 16, "c64": 64, "c128": 128}  # types whose name does not state their size

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_INSTRUCTION = re.compile(r"^  (ROOT )?%?([\w.\-]+) = (.*)$", re.DOTALL)
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\](\{[^}]*\})?")
_NAME = re.compile(r"%([\w.\-]+)")


@dataclass(frozen=True)
class Shape:
    """An array on one device: dims, size in bytes without padding, whether it is floating-point, and memory space."""

    dims: tuple[int, ...]
    num_bytes: int
    floating: bool
    space: int


@dataclass(frozen=True)
class Instruction:
    """One line of a module.

    Attributes:
        name: The name in its computation.
        opcode: The operation.
        shapes: The shapes of the result; several for a tuple.
        operands: The names of instructions of the same computation.
        literal: The text in the parentheses, such as the value of a constant.
        attributes: The text after the operands.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    literal: str
    attributes: str

    def attribute(self, pattern: str) -> str | None:
        """Return the first group of a pattern in the attributes, or None if it does not occur."""
        match = re.search(pattern, self.attributes)
        return None if match is None else match[1]

    def called(self, key: str) -> str | None:
        """Return the name of the computation under `key`: `calls`, `body`, `condition` or `to_apply`."""
        return self.attribute(rf"\b{key}=%?([\w.\-]+)")

    @property
    def num_bytes(self) -> int:
        """The size of the result."""
        return sum(shape.num_bytes for shape in self.shapes)


@dataclass
class Computation:
    """Instructions by name, in the order of execution."""

    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)
    root: str = ""

    def operands(self, instruction: Instruction) -> list[Instruction]:
        """Return the instructions that an instruction of this computation reads."""
        return [self.instructions[name] for name in instruction.operands]

    def parameter(self, index: int) -> Instruction:
        """Return the parameter with the number `index`."""
        return next(i for i in self.instructions.values() if i.opcode == "parameter" and i.literal == str(index))

    def users(self, name: str) -> Iterator[Instruction]:
        """Yield the instructions that read `name`."""
        return (instruction for instruction in self.instructions.values() if name in instruction.operands)


@dataclass(frozen=True)
class Module:
    """A compiled module: its computations by name, the entry computation, and the number of devices."""

    computations: dict[str, Computation]
    entry: Computation
    num_devices: int


def parse(text: str) -> Module:
    """Return the module of `text`, XLA's dump of it after all optimizations.

    Raises:
        ValueError: If the text has no entry computation.
    """
    computations: dict[str, Computation] = {}
    entry = current = None
    for line in _logical_lines(text):
        if (header := _HEADER.match(line)) is not None:
            current = computations[header[2]] = Computation(header[2])
            entry = current if header[1] else entry
        elif current is not None and (match := _INSTRUCTION.match(line)) is not None:
            instruction = _instruction(match[2], match[3])
            current.instructions[instruction.name] = instruction
            current.root = instruction.name if match[1] else current.root
    if entry is None:
        raise ValueError("the text has no ENTRY computation; pass the text of a compiled module")
    sizes = [int(n) for key in ("num_partitions", "replica_count") for n in re.findall(rf"{key}=(\d+)", text[:100_000])]
    return Module(computations, entry, max(sizes, default=1))


def _logical_lines(text: str) -> Iterator[str]:
    """Yield the lines, after joining those over which the metadata of a kernel is spread."""
    joined = ""
    for line in text.splitlines():
        if joined and not (line.startswith(("  %", "  ROOT ", "ENTRY ")) or line in ("}", "")):
            joined += line
            continue
        if joined:
            yield joined
        joined = line if _INSTRUCTION.match(line) else ""
        if not joined:
            yield line


def _instruction(name: str, text: str) -> Instruction:
    end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    opcode, _, rest = text[end:].lstrip().partition("(")
    close = _closing("(" + rest, 0) - 1
    inside, attributes = rest[:close], rest[close + 1 :]
    operands = tuple(_NAME.findall(inside)) if opcode not in ("constant", "parameter") else ()
    return Instruction(name, opcode, tuple(_shapes(text[:end])), operands, inside, attributes)


def _closing(text: str, start: int) -> int:
    """Return the index of the parenthesis that closes the one at `start`."""
    depth = 0
    for match in re.compile(r"[()]").finditer(text, start):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return match.start()
    raise ValueError(f"a parenthesis is not closed in {text[:80]!r}")


def _shapes(text: str) -> Iterator[Shape]:
    for dtype, dims, layout in _ARRAY.findall(text):
        sizes = tuple(int(size.lstrip("<=")) for size in dims.split(",") if size)
        bits = ITEM_BITS.get(dtype) or int((re.findall(r"\d+", dtype) or ["0"])[0])  # a token has no size
        space = re.search(r"S\((\d+)\)", layout)
        floating = dtype.startswith(("f", "bf"))
        yield Shape(sizes, math.prod(sizes) * bits // 8, floating, int(space[1]) if space else 0)


def trip_count(module: Module, caller: Computation, loop: Instruction) -> int:
    """Return the number of times that the body of a `while` runs.

    It is the compiler's annotation or, without one, derived from the constant in the loop's condition.

    Raises:
        ValueError: If neither determines it, because a loop counted once would give a plausible but wrong figure.
    """
    annotated = loop.attribute(r'"known_trip_count":\{"n":"(\d+)"')
    if annotated is not None:
        return int(annotated)
    condition = module.computations[loop.called("condition") or ""]
    counter = _limit(module, condition)
    if counter is not None:
        index, limit = counter
        start = _element(caller, caller.instructions[loop.operands[0]], index)
        step = _step(module, module.computations[loop.called("body") or ""], index)
        if start is not None and step:
            return max(0, math.ceil((limit - start) / step))
    raise ValueError(f"the number of trips of the loop {loop.name} is unknown; use a scan of fixed length")


def _limit(module: Module, condition: Computation) -> tuple[int, int] | None:
    """Return the index of the counter in the state of a loop, and the limit below which the loop continues."""
    root = condition.instructions[condition.root]
    operands = condition.operands(root)
    root = _unwrapped(module, root)
    if root.opcode != "compare" or len(operands) != 2 or "direction=LT" not in root.attributes:
        return None
    counter, limit = operands
    index = counter.attribute(r"index=(\d+)")
    return (int(index), int(limit.literal)) if index is not None and limit.opcode == "constant" else None


def _element(computation: Computation, state: Instruction, index: int) -> int | None:
    """Return the constant at `index` of the initial state of a loop, or None if it is not a constant."""
    if state.opcode != "tuple":
        return None
    value = _source(computation, computation.instructions[state.operands[index]])
    return int(value.literal) if value.opcode == "constant" else None


def _step(module: Module, body: Computation, index: int) -> int | None:
    """Return the increment of the counter in the body of a loop; 2 if the compiler merged two iterations."""
    root = body.instructions[body.root]
    if root.opcode != "tuple":
        return None
    value, total = _source(body, body.instructions[root.operands[index]]), 0
    while value.opcode != "get-tuple-element":
        operands = [_source(body, operand) for operand in body.operands(value)]
        constants = [operand for operand in operands if operand.opcode == "constant"]
        others = [operand for operand in operands if operand.opcode != "constant"]
        if _unwrapped(module, value).opcode != "add" or len(constants) != 1 or len(others) != 1:
            return None
        total, value = total + int(constants[0].literal), others[0]
    return total if value.attribute(r"index=(\d+)") == str(index) else None


def _unwrapped(module: Module, instruction: Instruction) -> Instruction:
    """Return the instruction inside a fusion of one instruction, which has the same operands in the same order."""
    if instruction.opcode != "fusion":
        return instruction
    inner = module.computations[instruction.called("calls") or ""]
    return inner.instructions[inner.root]


def _source(computation: Computation, value: Instruction) -> Instruction:
    """Return the instruction that a value is a copy of."""
    while value.opcode in ("copy", "bitcast", "convert"):
        value = computation.instructions[value.operands[0]]
    return value
