"""The layout of a safetensors file: 8 bytes with the length of the header, the header as JSON, and the tensors."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from rollout.storage.checkpoint_files import LENGTH_BYTES

Span = tuple[int, int]  # the first byte of a tensor in its file, and the one after its last
DTYPES = {"float32": ("F32", 4), "bfloat16": ("BF16", 2), "float16": ("F16", 2)}  # the format's name; bytes a value
ALIGNMENT = 8  # of the first tensor


def layout(shapes: Mapping[str, Sequence[int]], dtype: str) -> tuple[bytes, dict[str, Span]]:
    """Return the first bytes of a file and the span of each tensor, by name, in the order of names as safetensors does.

    Args:
        shapes: The shape of each tensor.
        dtype: The type of all of them, a key of `DTYPES`.
    """
    name_of_type, size = DTYPES[dtype]
    offsets, entries, end = {}, {}, 0
    for name, shape in sorted(shapes.items()):
        offsets[name] = (end, end + math.prod(shape) * size)
        end = offsets[name][1]
        entries[name] = {"dtype": name_of_type, "shape": list(shape), "data_offsets": list(offsets[name])}
    header = json.dumps({"__metadata__": {"format": "pt"}, **entries}, separators=(",", ":")).encode()
    header += b" " * (-(LENGTH_BYTES + len(header)) % ALIGNMENT)
    start = LENGTH_BYTES + len(header)
    spans = {name: (start + first, start + last) for name, (first, last) in offsets.items()}
    return len(header).to_bytes(LENGTH_BYTES, "little") + header, spans


def read_spans(path: Path) -> dict[str, Span]:
    """Return the span of each tensor in a complete file, by name."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    start = LENGTH_BYTES + length
    return {
        name: (start + entry["data_offsets"][0], start + entry["data_offsets"][1]) for name, entry in header.items()
    }
