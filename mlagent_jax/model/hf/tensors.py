"""The safetensors files of a checkpoint, mapped into memory and read a part at a time."""

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from mlagent_jax.model.config import TransformerConfig
from mlagent_jax.model.config_keys import NO_QUANTIZATION
from mlagent_jax.model.hf.layout import (
    TOP_NAMES,
    Slices,
    from_hf,
    hf_layer_name,
    hf_shapes,
    hf_slices,
)
from rollout.storage.checkpoint_files import require_safetensors
from rollout.storage.weight_map import INDEX, Placement, find_weights
from tasks.quoting import quoted

FLOATS = ("F64", "F32", "F16", "BF16")
QUANTIZED = (".qweight", ".qzeros", ".scales", ".g_idx", ".weight_scale", ".weight_scale_inv", ".absmax", ".quant_map")
QUANTIZED_HINT = f" ({NO_QUANTIZATION})"
ROWS_COMPARED = 1024  # of a matrix at a time, so that comparing needs little memory


class Tensors:
    """The tensors of a checkpoint; each comes from the file that the index names, and from no other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = ExitStack()
        self._slices: dict[str, Any] = {}
        self._extra: list[tuple[str, str, Any]] = []  # (name, file, slice) of copies in files that the index ignores

    def __enter__(self) -> "Tensors":
        placement = find_weights(self.folder)
        try:
            for name in placement.files:
                self._open(self.folder / name, placement)
            for name, file in placement.weight_map.items():
                if name not in self._slices:
                    place = self.folder / file
                    raise ValueError(
                        f"{place}: has no tensor {quoted(name)}; {INDEX} names this file; fetch both again"
                    )
            self._check_copies()
        except BaseException:
            self._files.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._slices.clear()
        self._extra.clear()
        self._files.close()

    def _open(self, path: Path, placement: Placement) -> None:
        require_safetensors(path)
        try:
            shard = self._files.enter_context(safe_open(path, framework="numpy"))
            for name in shard.keys():  # noqa: SIM118 - not a dict
                part = shard.get_slice(name)
                kind = part.get_dtype()
                if kind not in FLOATS:
                    raise ValueError(
                        f"{path}: {printable(name)} is of type {kind}; expected {' or '.join(FLOATS)}{QUANTIZED_HINT}"
                    )
                named = placement.weight_map.get(name) if placement.weight_map else path.name
                if named is None:
                    raise ValueError(f"{path}: holds {quoted(name)}, which {INDEX} does not name; fetch both again")
                if named == path.name:
                    self._slices[name] = part
                else:
                    self._extra.append((name, path.name, part))
        except SafetensorError as error:
            raise ValueError(
                f"{path}: not a readable safetensors file: its header is damaged ({error}); fetch it again"
            ) from None

    def _check_copies(self) -> None:
        """Refuse a second copy of a tensor that differs: other programs may read that one."""
        for name, file, part in self._extra:
            if not same(part, self._slices[name]):
                raise ValueError(
                    f"{self.folder / file}: holds another {quoted(name)} than the file that {INDEX} names; fetch the "
                    "index and all its files again"
                )

    def check(self, config: TransformerConfig) -> None:
        """Raise ValueError if the tensors are not those of such a model; name the first five."""
        expected = hf_shapes(config)
        shapes: Mapping[str, tuple[int, ...]] = {name: tuple(part.get_shape()) for name, part in self._slices.items()}
        head = TOP_NAMES["lm_head"]
        # some checkpoints store a tied head a second time
        spare = {head} if config.tie_word_embeddings else set()
        problems = [f"{name}: missing{_head_hint(name)}" for name in expected if name not in shapes]
        problems += [
            f"{printable(name)}: unknown{_hint(name)}" for name in shapes if name not in expected and name not in spare
        ]
        problems += [
            f"{name}: checkpoint has {shapes[name]}, config.json says {shape}"
            for name, shape in expected.items()
            if name in shapes and shapes[name] != shape
        ]
        if problems:
            more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
            remedy = _prefix_hint(expected, shapes) or "use the weights and the config.json of the same model"
            raise ValueError(f"{self.folder}: weights do not fit the config: {'; '.join(problems[:5])}{more}; {remedy}")
        if spare & shapes.keys() and not same(self._slices[head], self._slices[TOP_NAMES["embed_tokens"]]):
            raise ValueError(
                f"{self.folder}: config.json says tie_word_embeddings=true, but {head} is not the embedding; set "
                "tie_word_embeddings to false to use the head"
            )

    def read(self, name: str, slices: Slices, config: TransformerConfig) -> np.ndarray:
        """Return the part `slices` of our parameter `name`, in fp32.

        Raises:
            ValueError: If a value of it is not finite in fp32.
        """
        with np.errstate(over="ignore"):  # what is too large for fp32 becomes infinite and is refused
            if name in TOP_NAMES:
                return self._finite(TOP_NAMES[name], self._slices[TOP_NAMES[name]][slices].astype(np.float32))
            first, *rest = slices
            within = hf_slices(config, name, tuple(rest))
            names = [hf_layer_name(config, name, i) for i in range(*first.indices(config.num_layers))]
            return np.stack([self._finite(each, from_hf(config, name, self._slices[each][within])) for each in names])

    def _finite(self, name: str, part: np.ndarray) -> np.ndarray:
        # The extremes are NaN or infinite if any value is; isfinite would need a second array of the size.
        if part.size and not (np.isfinite(part.min()) and np.isfinite(part.max())):
            count = int(np.count_nonzero(~np.isfinite(part)))
            raise ValueError(
                f"{self.folder}: {name} holds {count} values that are not finite in float32; fetch the checkpoint "
                "again, or use an earlier one of the training that made it"
            )
        return part


def same(a: Any, b: Any) -> bool:
    """Return whether two tensors in safetensors files have the same shape and values, read a few rows at a time."""
    shape = list(a.get_shape())
    if shape != list(b.get_shape()):
        return False
    if not shape:
        return bool(np.array_equal(a[...], b[...]))
    for start in range(0, shape[0], ROWS_COMPARED):
        rows = slice(start, min(start + ROWS_COMPARED, shape[0]))
        # A NaN in both is no difference: it is refused by itself.
        if not np.array_equal(a[rows].astype(np.float64), b[rows].astype(np.float64), equal_nan=True):
            return False
    return True


def printable(name: str) -> str:
    """Return a tensor's name, in quotes if it has line breaks or the like."""
    return name if name.isprintable() else quoted(name)


def _prefix_hint(expected: Collection[str], found: Collection[str]) -> str:
    """Return what to do about names that all begin with the name of a wrapper, `` if they do not."""
    embedding = TOP_NAMES["embed_tokens"]
    prefix = next((name.removesuffix(embedding) for name in found if name.endswith(embedding)), "")
    if not prefix or not all(f"{prefix}{name}" in found for name in expected):
        return ""
    return f"each name begins with {quoted(prefix)}: save the model itself, not what it is wrapped in"


def _head_hint(name: str) -> str:
    if name != TOP_NAMES["lm_head"]:
        return ""
    return " (if the checkpoint's head is its embedding, set tie_word_embeddings to true in config.json)"


def _hint(name: str) -> str:
    if name.endswith(QUANTIZED):
        return QUANTIZED_HINT
    if ".lora_" in name or name.startswith("base_model."):
        return " (a LoRA adapter; merge it into its base model and save the whole model)"
    return ""
