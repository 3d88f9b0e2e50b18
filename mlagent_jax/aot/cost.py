"""The cost of a compiled module on each device: FLOPs, bytes through its memory, bytes sent to other devices.

This replaces XLA's `Compiled.cost_analysis`, which counts the body of a loop once and a Pallas kernel not at all. Here
every instruction counts as often as it runs.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from mlagent_jax.aot.flops import flops
from mlagent_jax.aot.hlo import Computation, Instruction, Module, trip_count
from mlagent_jax.aot.traffic import ON_GPU, Sent, collective, hbm_bytes, runs_beside

FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"}


@dataclass(frozen=True)
class Cost:
    """An instruction and its cost per execution.

    Attributes:
        name: The name in the module.
        trips: The number of executions in one call of the program.
        flops: The floating-point operations.
        hbm_bytes: The bytes read from and written to memory.
        sent: What it sends to other devices; None for nothing.
    """

    name: str
    trips: int
    flops: float = 0.0
    hbm_bytes: float = 0.0
    sent: Sent | None = None


def costs(module: Module) -> list[Cost]:
    """Return the cost of every instruction that runs; a fusion is one instruction.

    Raises:
        ValueError: If the number of trips of a loop cannot be determined.
    """
    return list(_walk(module, module.entry, 1))


def _walk(module: Module, computation: Computation, trips: int) -> Iterator[Cost]:
    for instruction in computation.instructions.values():
        opcode = instruction.opcode
        if opcode == "while":
            body = module.computations[instruction.called("body") or ""]
            yield from _walk(module, body, trips * trip_count(module, computation, instruction))
        elif opcode == "conditional":
            branches = re.findall(r"%([\w.\-]+)", instruction.attribute(r"branch_computations=\{([^}]*)\}") or "")
            branches += filter(None, (instruction.called(f"{key}_computation") for key in ("true", "false")))
            costs_of = [list(_walk(module, module.computations[name], trips)) for name in branches]
            yield from max(costs_of, key=lambda costs: sum(cost.flops + cost.hbm_bytes for cost in costs))
        elif opcode == "call":
            yield from _walk(module, module.computations[instruction.called("to_apply") or ""], trips)
        elif opcode == "async-start":
            for cost in _walk(module, module.computations[instruction.called("calls") or ""], trips):
                yield _begun(cost, instruction)
        elif opcode not in FREE and not opcode.endswith(("-done", "-update")):
            yield _cost(module, computation, instruction, trips)


def _begun(cost: Cost, start: Instruction) -> Cost:
    """Return the cost of an instruction that another one only starts."""
    sent = cost.sent and replace(cost.sent, overlaps=runs_beside(start))
    return replace(cost, sent=sent, hbm_bytes=0.0 if ON_GPU in start.attributes else cost.hbm_bytes)


def _cost(module: Module, computation: Computation, instruction: Instruction, trips: int) -> Cost:
    num_flops, moved = flops(module, computation, instruction), hbm_bytes(module, computation, instruction)
    return Cost(instruction.name, trips, num_flops, moved, collective(module, computation, instruction))
