"""The text of a compiled module, read into computations and instructions, and how often its loops run."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

HBM_SPACE = 0  # of arrays whose layout has no S(n); 1 is the vector memory of a TPU, 5 the host's, others are smaller
ITEM_BITS = {"pred": 8, "bf16": 16, "c64": 64, "c128": 128}  # of types whose name is not their size

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_INSTRUCTION = re.compile(r"^  (ROOT )?%?([\w.\-]+) = (.*)$", re.DOTALL)
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\](\{[^}]*\})?")
_NAME = re.compile(r"%([\w.\-]+)")


@dataclass(frozen=True)
class Shape:
    """One array of an instruction: its dims on one device, its size in bytes without padding, and where it lies."""

    dims: tuple[int, ...]
    num_bytes: int
    floating: bool
    space: int


@dataclass(frozen=True)
class Instruction:
    """One line of a module.

    Attributes:
        shapes: of the result; several for a tuple.
        operands: names of instructions of the same computation.
        literal: what stands in the parentheses, such as the value of a constant.
        attributes: the text behind the operands.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    literal: str
    attributes: str

    def attribute(self, pattern: str) -> str | None:
        """Return the first group of a pattern that occurs in the attributes."""
        found = re.search(pattern, self.attributes)
        return None if found is None else found[1]

    def called(self, key: str) -> str | None:
        """Return the name of the computation under `key`: `calls`, `body`, `condition` or `to_apply`."""
        return self.attribute(rf"\b{key}=%?([\w.\-]+)")

    @property
    def num_bytes(self) -> int:
        """Size of the result."""
        return sum(shape.num_bytes for shape in self.shapes)


@dataclass
class Computation:
    """Instructions by name, in the order they run."""

    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)
    root: str = ""

    def operands(self, instruction: Instruction) -> list[Instruction]:
        """Return the instructions that an instruction of this computation reads."""
        return [self.instructions[name] for name in instruction.operands]

    def parameter(self, index: int) -> Instruction:
        """Return the parameter of that number."""
        return next(i for i in self.instructions.values() if i.opcode == "parameter" and i.literal == str(index))

    def users(self, name: str) -> Iterator[Instruction]:
        """Yield the instructions that read `name`."""
        return (instruction for instruction in self.instructions.values() if name in instruction.operands)


@dataclass(frozen=True)
class Module:
    """A compiled module: its computations by name, which of them is run, and on how many devices."""

    computations: dict[str, Computation]
    entry: Computation
    num_devices: int


def parse(text: str) -> Module:
    """Return the module that `text`, XLA's own print of it after all optimisations, describes."""
    computations: dict[str, Computation] = {}
    entry = current = None
    for line in _logical_lines(text):
        if (header := _HEADER.match(line)) is not None:
            current = computations[header[2]] = Computation(header[2])
            entry = current if header[1] else entry
        elif current is not None and (found := _INSTRUCTION.match(line)) is not None:
            instruction = _instruction(found[2], found[3])
            current.instructions[instruction.name] = instruction
            current.root = instruction.name if found[1] else current.root
    if entry is None:
        raise ValueError("the text holds no ENTRY computation; give the text of a compiled module")
    sizes = [int(n) for key in ("num_partitions", "replica_count") for n in re.findall(rf"{key}=(\d+)", text[:100_000])]
    return Module(computations, entry, max(sizes, default=1))


def _logical_lines(text: str) -> Iterator[str]:
    """Yield lines; what a kernel's metadata spreads over several is joined."""
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
    """Return where the parenthesis that opens at `start` is closed."""
    depth = 0
    for found in re.compile(r"[()]").finditer(text, start):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return found.start()
    raise ValueError(f"a parenthesis is not closed in {text[:80]!r}")


def _shapes(text: str) -> Iterator[Shape]:
    for dtype, dims, layout in _ARRAY.findall(text):
        sizes = tuple(int(size.lstrip("<=")) for size in dims.split(",") if size)
        bits = ITEM_BITS.get(dtype) or int((re.findall(r"\d+", dtype) or ["0"])[0])  # tokens have no size
        space = re.search(r"S\((\d+)\)", layout)
        floating = dtype.startswith(("f", "bf"))
        yield Shape(sizes, math.prod(sizes) * bits // 8, floating, int(space[1]) if space else 0)


def trip_count(module: Module, caller: Computation, loop: Instruction) -> int:
    """Return how often the body of a `while` runs: what the compiler noted, or else what its condition compares with.

    Raises:
        ValueError: if neither tells, since a loop counted once would be a wrong figure that looks right.
    """
    noted = loop.attribute(r'"known_trip_count":\{"n":"(\d+)"')
    if noted is not None:
        return int(noted)
    condition = module.computations[loop.called("condition") or ""]
    found = _limit(module, condition)
    if found is not None:
        index, limit = found
        start = _element(caller, caller.instructions[loop.operands[0]], index)
        step = _step(module, module.computations[loop.called("body") or ""], index)
        if start is not None and step:
            return max(0, math.ceil((limit - start) / step))
    raise ValueError(f"the loop {loop.name} has no number of trips that can be read; use a scan of fixed length")


def _limit(module: Module, condition: Computation) -> tuple[int, int] | None:
    """Return the place of the counter in the loop's state and the number below which it runs on."""
    root = condition.instructions[condition.root]
    operands = condition.operands(root)
    root = _unwrapped(module, root)
    if root.opcode != "compare" or len(operands) != 2 or "direction=LT" not in root.attributes:
        return None
    counter, limit = operands
    index = counter.attribute(r"index=(\d+)")
    return (int(index), int(limit.literal)) if index is not None and limit.opcode == "constant" else None


def _element(computation: Computation, state: Instruction, index: int) -> int | None:
    """Return the constant at `index` of a loop's first state."""
    if state.opcode != "tuple":
        return None
    value = _source(computation, computation.instructions[state.operands[index]])
    return int(value.literal) if value.opcode == "constant" else None


def _step(module: Module, body: Computation, index: int) -> int | None:
    """Return what a loop's body adds to its counter: 2 where the compiler put two rounds into one."""
    root = body.instructions[body.root]
    if root.opcode != "tuple":
        return None
    value, total = _source(body, body.instructions[root.operands[index]]), 0
    while value.opcode != "get-tuple-element":
        operands = [_source(body, each) for each in body.operands(value)]
        constants = [each for each in operands if each.opcode == "constant"]
        others = [each for each in operands if each.opcode != "constant"]
        if _unwrapped(module, value).opcode != "add" or len(constants) != 1 or len(others) != 1:
            return None
        total, value = total + int(constants[0].literal), others[0]
    return total if value.attribute(r"index=(\d+)") == str(index) else None


def _unwrapped(module: Module, instruction: Instruction) -> Instruction:
    """Return what a fusion of one instruction does; it takes the same operands in the same order."""
    if instruction.opcode != "fusion":
        return instruction
    inner = module.computations[instruction.called("calls") or ""]
    return inner.instructions[inner.root]


def _source(computation: Computation, value: Instruction) -> Instruction:
    """Return what a value is a copy of."""
    while value.opcode in ("copy", "bitcast", "convert"):
        value = computation.instructions[value.operands[0]]
    return value
