"""The kernels of ours in a module that is compiled for an NVIDIA GPU, and their generated code."""

import re
from collections.abc import Sequence

from mlagent_jax.aot.flops import GPU_KERNEL, kernel_target
from mlagent_jax.aot.hlo import Module


def require_code(module: Module, code: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the kernels that a module calls, all of which have generated code.

    Args:
        module: The compiled module; one for a TPU calls none of these kernels.
        code: The parts of the generated code, as assembler text.

    Raises:
        ValueError: If a kernel has no code.
    """
    called: set[str] = set()
    for computation in module.computations.values():
        for instruction in computation.instructions.values():
            if instruction.opcode == "custom-call" and kernel_target(instruction) == GPU_KERNEL:
                called.add(instruction.attribute(r'\bname = "(\w+)"') or instruction.name)
    missing = called - {name for part in code for name in re.findall(r"\.entry (\w+)", part)}
    if missing:
        raise ValueError(
            f"the compiler generated no code for {', '.join(sorted(missing))}, expected code for every kernel that the "
            "program calls; file an issue with the versions of jax and the plugin"
        )
    return tuple(sorted(called))
