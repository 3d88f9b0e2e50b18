"""Open GGUF files, whole or split, and dequantize their tensors."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGUFReader, ReaderTensor, dequantize
from jaxtyping import Float

from rollout.storage.checkpoint_files import refuse_pointer
from tasks.quoting import quoted

SPLIT_NAME = re.compile(r"(?P<stem>.*)-\d{5}-of-(?P<count>\d{5})\.gguf")


class GGUFFile:
    """The metadata and the tensors of a checkpoint; values are read when they are asked for.

    Attributes:
        path: The file, or any part of a split one.
        metadata: The values by key.
        shapes: The shape of each tensor in the order of PyTorch, by name.
    """

    def __init__(self, path: Path) -> None:
        """Read everything except the values of the tensors.

        Raises:
            FileNotFoundError: If the file, or a part of a split file, is missing.
            ValueError: If a part is not a GGUF file, or two parts have the same tensor.
        """
        self.path = Path(path)
        self.metadata: dict[str, Any] = {}
        self._tensors: dict[str, ReaderTensor] = {}
        parts = _parts(self.path)
        for part in parts:
            metadata, tensors = _read(part)
            self.metadata = self.metadata or metadata
            for tensor in tensors:
                if tensor.name in self._tensors:
                    raise ValueError(f"{part}: {quoted(tensor.name)} is in two parts; fetch all parts again")
                self._tensors[tensor.name] = tensor
        if (count := self.metadata.get("split.count", 1)) != len(parts):
            raise ValueError(
                f"{self.path}: one of {count} files; name them PREFIX-00001-of-{count:05d}.gguf and so on, side by side"
            )
        expected = self.metadata.get("split.tensors.count", len(self._tensors))
        if len(self._tensors) != expected:
            raise ValueError(f"{self.path}: {len(self._tensors)} tensors, expected {expected}; fetch all parts again")
        self.shapes = {name: tuple(map(int, tensor.shape[::-1])) for name, tensor in self._tensors.items()}

    def values(self, name: str, step: int = 1) -> Float[np.ndarray, "..."]:
        """Return a tensor in fp32, or only every `step`-th of its rows.

        Raises:
            ValueError: If the gguf package cannot dequantize it, or a value is not finite.
        """
        tensor = self._tensors[name]
        try:
            values = dequantize(tensor.data[::step], tensor.tensor_type)
        except NotImplementedError:
            kind = tensor.tensor_type.name
            raise ValueError(
                f"{self.path}: {name} is of type {kind}, unknown to gguf; use a file of another type"
            ) from None
        if not np.isfinite(values).all():
            raise ValueError(f"{self.path}: {name} holds values that are not finite; fetch the file again")
        return values

    def license(self) -> str:
        """Return what the file states about its license, one line each, `` if nothing."""
        stated = {key: value for key, value in self.metadata.items() if key.startswith("general.license")}
        return "".join(f"{key.removeprefix('general.')}: {value}\n" for key, value in stated.items())

    def bits(self, name: str) -> float:
        """Return the bits per value with which a tensor is stored."""
        block, size = GGML_QUANT_SIZES[self._tensors[name].tensor_type]
        return 8 * size / block


def _parts(path: Path) -> list[Path]:
    """Return the files of a checkpoint, in order."""
    parts = [path]
    if (name := SPLIT_NAME.fullmatch(path.name)) and (count := int(name["count"])):
        parts = [path.with_name(f"{name['stem']}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1)]
    for part in parts:
        if not part.is_file():
            raise FileNotFoundError(f"{part}: no such file; expected a GGUF file")
    return parts


def _read(path: Path) -> tuple[dict[str, Any], list[ReaderTensor]]:
    refuse_pointer(path)
    try:
        reader = GGUFReader(path)
        return {name: field.contents() for name, field in reader.fields.items()}, reader.tensors
    except Exception as error:  # the library raises many types for a damaged file
        raise ValueError(f"{path}: not a readable GGUF file ({error}); fetch it again") from None
