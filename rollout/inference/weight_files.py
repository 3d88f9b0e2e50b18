"""What the safetensors files of a checkpoint directory hold: names, kinds and shapes by their headers, and digests."""

import hashlib
import json
import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open

from rollout.errors import ServerError

FLOAT_DTYPES = ("F32", "BF16", "F16")  # each is converted to the served one as it is loaded


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint directory, as absolute paths.

    Raises:
        ValueError: where there is none.
    """
    files = sorted(Path(folder).resolve().glob("*.safetensors"))
    if not files:
        raise ValueError(f"no *.safetensors in {folder}; expected a checkpoint directory")
    return files


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor in a checkpoint directory.

    Raises:
        ValueError: where there is no safetensors file, one is not whole, or a tensor is not floating point.
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
            raise ValueError(f"{file} is not a whole safetensors file: {error}") from None
    return shapes


def check_same_tensors(folder: Path, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Check that a checkpoint directory holds exactly the tensors `expected`, by name and shape.

    Raises:
        ValueError: naming what is missing, unknown or of another shape.
    """
    found = tensor_shapes(folder)
    missing = sorted(expected.keys() - found.keys())
    unknown = sorted(found.keys() - expected.keys())
    if missing or unknown:
        raise ValueError(
            f"weights in {folder} do not fit the served model: missing {_some(missing)}; unknown {_some(unknown)}"
        )
    for name, shape in found.items():
        if shape != expected[name]:
            raise ValueError(f"{name} in {folder} has shape {shape}; the served model has {expected[name]}")


def check_digests(folder: Path, digests: Mapping[str, str]) -> None:
    """Compare the bytes of every tensor in a checkpoint directory with their SHA-256; none given, nothing is compared.

    Raises:
        ServerError: for a tensor that is not the one that was sent, or was not sent at all, or is not there.
    """
    due = dict(digests)
    for file in weight_files(folder) if digests else ():
        for name, digest in _digests(file).items():
            if digest != due.pop(name, None):
                raise ServerError(f"{name} in {file} is not the tensor that was sent")
    if due:
        raise ServerError(f"{', '.join(sorted(due))}: sent, but in no file of {folder}")


def _digests(file: Path) -> dict[str, str]:
    """Return the SHA-256 of every tensor in a safetensors file, by name: 8 bytes of size, a JSON header, tensors."""
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:start])
        header.pop("__metadata__", None)
        spans = {name: [start + offset for offset in described["data_offsets"]] for name, described in header.items()}
        with memoryview(content) as view:
            return {name: hashlib.sha256(view[first:last]).hexdigest() for name, (first, last) in spans.items()}


def _some(names: Sequence[str]) -> str:
    return (", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")) or "none"
