"""FLOPs of single instructions: matrix products, with two FLOPs per multiply-add, and attention kernels."""

import math
import re

import numpy as np

from mlagent_jax.aot.hlo import Computation, Instruction, Module

# The number of products of T queries and S keys of size H in one attention kernel, splash's or ours, forward and
# backward. The fused backward kernel of splash also computes dq. A causal mask leaves half of the scores.
KERNELS = r"(?:splash_m[hq]a|attention)_(fwd|forward|dq|dkv)"
KERNEL_PRODUCTS = {"fwd": 2, "forward": 2, "dq": 3, "dkv": 4}
FUSED_BACKWARD_PRODUCTS = 5
CAUSAL_SHARE = 0.5
TPU_KERNEL, GPU_KERNEL = "tpu_custom_call", "__gpu$xla.gpu.triton"  # targets of the custom calls of Pallas


def flops(module: Module, computation: Computation, instruction: Instruction) -> float:
    """Return the FLOPs of one execution of an instruction, or of all instructions in a fusion.

    Elementwise operations count as 0.

    Raises:
        ValueError: If the FLOPs of a kernel are not known.
    """
    if instruction.opcode == "fusion":
        inner = module.computations[instruction.called("calls") or ""]
        return sum(flops(module, inner, part) for part in inner.instructions.values())
    if instruction.opcode == "dot":
        left = computation.operands(instruction)[0].shapes[0].dims
        contracted = instruction.attribute(r"lhs_contracting_dims=\{([\d,]*)\}") or ""
        depth = math.prod(left[int(dim)] for dim in contracted.split(",") if dim)
        return 2.0 * math.prod(instruction.shapes[0].dims) * depth
    if instruction.opcode == "convolution":
        return _convolution_flops(instruction, *(o.shapes[0].dims for o in computation.operands(instruction)))
    if instruction.opcode == "custom-call" and kernel_target(instruction) in (TPU_KERNEL, GPU_KERNEL):
        return _kernel_flops(computation, instruction)
    return 0.0


def _convolution_flops(instruction: Instruction, left: tuple[int, ...], right: tuple[int, ...]) -> float:
    """Return the FLOPs of a convolution, the form in which the TPU compiler writes every matrix product.

    The compiler turns batch dims into spatial dims, with a dilation or padding such that each output meets one position
    of the window. As in XLA's HloCostAnalysis, only positions that meet an element of the input count.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    assert labels is not None, instruction
    lhs, rhs, out = labels.groups()
    window = dict(re.findall(r"(\w+)=([\dx_\-]+)", instruction.attribute(r"window=\{([^}]*)\}") or ""))
    count = float(right[rhs.index("i")] * right[rhs.index("o")] * left[lhs.index("b")])
    count /= int(instruction.attribute(r"batch_group_count=(\d+)") or 1)
    for dim in sorted(set(lhs) - {"b", "f"}):
        at = int(dim)

        def setting(key: str, default: str, at: int = at) -> str:
            return window[key].split("x")[at] if key in window else default

        count *= _meetings(
            left[lhs.index(dim)],
            right[rhs.index(dim)],
            instruction.shapes[0].dims[out.index(dim)],
            stride=int(setting("stride", "1")),
            low=int(setting("pad", "0_0").split("_")[0]),
            base=int(setting("lhs_dilate", "1")),
            step=int(setting("rhs_dilate", "1")),
        )
    return 2.0 * count


def _meetings(size: int, window: int, outputs: int, stride: int, low: int, base: int, step: int) -> int:
    """Return the number of pairs (output, position of the window) that meet an element of the input along one dim."""
    at = np.arange(outputs)[:, None] * stride + np.arange(window)[None] * step - low
    return int(np.sum((at >= 0) & (at < (size - 1) * base + 1) & (at % base == 0)))


def kernel_target(instruction: Instruction) -> str | None:
    """Return the target of a custom call."""
    return instruction.attribute(r'custom_call_target="([^"]*)"')


def _kernel_flops(computation: Computation, instruction: Instruction) -> float:
    kernel = re.search(KERNELS, f"{instruction.name} {instruction.attributes}")
    if kernel is None:
        raise ValueError(
            f"the FLOPs of the kernel {instruction.name} are unknown, expected an attention kernel; add its formula to "
            "mlagent_jax/aot/flops.py"
        )
    arrays = [operand.shapes[0] for operand in computation.operands(instruction) if operand.shapes[0].floating]
    query, key = arrays[0].dims, arrays[1].dims
    products = KERNEL_PRODUCTS[kernel[1]]
    if kernel_target(instruction) == GPU_KERNEL:
        return 2.0 * products * math.prod(query) * key[1] * CAUSAL_SHARE  # keys are [B, S, K, H]
    if kernel[1] == "dkv" and sum(shape.floating and len(shape.dims) > len(key) for shape in instruction.shapes) > 0:
        products = FUSED_BACKWARD_PRODUCTS  # its parts of dq, one per block of keys, have an additional dim
    return 2.0 * products * math.prod(query) * key[-2] * CAUSAL_SHARE
