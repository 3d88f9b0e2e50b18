"""Read names, types, shapes and digests of the tensors in a checkpoint directory's safetensors files."""

import hashlib
import json
import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open

from rollout.errors import ServerError

FLOAT_DTYPES = ("F32", "BF16", "F16")  # converted to the served type on loading


def weight_files(folder: Path) -> list[Path]:
    """Return the absolute paths of the safetensors files in a checkpoint directory.

    Raises:
        ValueError: If there are none.
    """
    files = sorted(Path(folder).resolve().glob("*.safetensors"))
    if not files:
        raise ValueError(f"no *.safetensors in {folder}; expected a checkpoint directory")
    return files


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor in a checkpoint directory, by name.

    Raises:
        ValueError: If there is no safetensors file, one is incomplete, or a tensor is not floating point.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in weight_files(folder):
        try:
            with safe_open(file, framework="numpy") as tensors:
                for name in tensors.keys():
                    view = tensors.get_slice(name)
                    if view.get_dtype() not in FLOAT_DTYPES:
                        raise ValueError(f"{name} in {file} is {view.get_dtype()}; expected one of {FLOAT_DTYPES}")
                    shapes[name] = tuple(view.get_shape())
        except SafetensorError as error:
            raise ValueError(f"{file} is not a complete safetensors file ({error}); write the weights again") from None
    return shapes


def check_same_tensors(folder: Path, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Check that a checkpoint directory holds exactly the tensors in `expected`, by name and shape.

    Raises:
        ValueError: If tensors are missing, unknown or of another shape. The message names them.
    """
    shapes = tensor_shapes(folder)
    missing = sorted(expected.keys() - shapes.keys())
    unknown = sorted(shapes.keys() - expected.keys())
    if missing or unknown:
        raise ValueError(
            f"weights in {folder} do not fit the served model: missing {_some(missing)}; unknown {_some(unknown)}"
        )
    for name, shape in shapes.items():
        if shape != expected[name]:
            raise ValueError(f"{name} in {folder} has shape {shape}; the served model has {expected[name]}")


def check_digests(folder: Path, digests: Mapping[str, str]) -> None:
    """Compare the SHA-256 of every tensor in a checkpoint directory with `digests`; empty digests skip the check.

    Raises:
        ServerError: If a tensor differs, is missing, or has no digest.
    """
    remaining = dict(digests)
    for file in weight_files(folder) if digests else ():
        for name, digest in _digests(file).items():
            if digest != remaining.pop(name, None):
                raise ServerError(f"{name} in {file} is not the tensor that was sent")
    if remaining:
        raise ServerError(f"{', '.join(sorted(remaining))}: sent, but in no file of {folder}")


def _digests(file: Path) -> dict[str, str]:
    """Return the SHA-256 of every tensor in a safetensors file, by name.

    The format is 8 bytes with the size of the header, the header as JSON, and the tensors.
    """
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:start])
        header.pop("__metadata__", None)
        spans = {name: [start + offset for offset in described["data_offsets"]] for name, described in header.items()}
        with memoryview(content) as view:
            return {name: hashlib.sha256(view[first:last]).hexdigest() for name, (first, last) in spans.items()}


def _some(names: Sequence[str]) -> str:
    return (", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")) or "none"
