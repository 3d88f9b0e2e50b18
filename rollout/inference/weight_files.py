"""Read names, types, shapes and digests of the tensors in safetensors files of checkpoints and adapters."""

import json
import mmap
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from safetensors import SafetensorError, safe_open

from rollout.errors import ServerError
from rollout.storage.checkpoint_files import safetensors_damage
from rollout.storage.digests import NUM_THREADS
from rollout.storage.safetensors_layout import Span, read_spans
from rollout.storage.tensor_digest import has_digest
from rollout.storage.weight_map import INDEX, WEIGHTS, find_weights

ADAPTER = "adapter"  # its folder beside the policy's weights
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_PREFIX = "base_model.model."  # of the names of its tensors
FLOAT_DTYPES = ("F32", "BF16", "F16")  # converted to the served type on loading


def weight_files(folder: Path) -> list[Path]:
    """Return the absolute paths of the safetensors files in a checkpoint directory.

    With an index these are the files that it names, and without one `model.safetensors` if there is one: a file that
    merely lies beside them has no tensor of the checkpoint.

    Raises:
        ValueError: If there are none, or the index is damaged.
    """
    folder = Path(folder).resolve()
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"no *.safetensors in {folder}; expected a checkpoint directory")
    if (folder / INDEX).is_file() or (folder / WEIGHTS).is_file():
        return [folder / name for name in find_weights(folder).files]
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
        except SafetensorError:
            damage = safetensors_damage(file) or "its header is damaged"
            raise ValueError(f"{file} is not a complete safetensors file: {damage}; write or fetch it again") from None
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


def check_adapter(folder: Path, base: Mapping[str, tuple[int, ...]], max_rank: int) -> None:
    """Check that a PEFT directory holds two factors of every matrix that it names, for the layers of a base.

    vLLM itself accepts an adapter that lacks tensors.

    Args:
        folder: The directory.
        base: The shape of every tensor of the base.
        max_rank: The largest rank that the server takes.

    Raises:
        ValueError: If a tensor is missing, unknown or of another shape, or the rank is too high.
        OSError: If a file is missing.
    """
    config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    rank, targets = config["r"], set(config["target_modules"])
    if rank > max_rank:
        raise ValueError(f"{folder}: its rank is {rank}, and the server takes {max_rank} at most")
    expected = {}
    for name, shape in base.items():
        module = name.removesuffix(".weight")
        if len(shape) == 2 and module.rpartition(".")[2] in targets:
            expected[f"{ADAPTER_PREFIX}{module}.lora_A.weight"] = (rank, shape[1])
            expected[f"{ADAPTER_PREFIX}{module}.lora_B.weight"] = (shape[0], rank)
    found = tensor_shapes(folder)
    for name in sorted(expected.keys() | found.keys()):
        if found.get(name) != expected.get(name):
            has, needs = found.get(name, "none"), expected.get(name, "none")
            raise ValueError(f"{folder}: {name} has shape {has}, the served model needs {needs}")


def changed_tensors(
    digests: Mapping[str, str], held: Mapping[str, str], fused: Mapping[str, Sequence[str]]
) -> list[str]:
    """Return the names of the tensors to load: of every layer with a tensor that is not held with its digest.

    vLLM loads a layer wholly or not at all, so a layer whose weight changed needs its bias too.

    Args:
        digests: The digest of every tensor of the new weights, by name.
        held: The digests of the tensors that the model has.
        fused: The checkpoint's layers that vLLM fuses, by the fused layer's name: all of them are loaded together.
    """
    fused_name = {part: name for name, parts in fused.items() for part in parts}

    def layer(name: str) -> tuple[str, str]:
        parent, _, last = name.rpartition(".")[0].rpartition(".")
        return parent, fused_name.get(last, last)

    layers = {layer(name) for name, digest in digests.items() if held.get(name) != digest}
    return [name for name in digests if layer(name) in layers]


def check_digests(folder: Path, digests: Mapping[str, str]) -> None:
    """Compare the digest of every tensor in a checkpoint directory with `digests`; empty digests skip the check.

    Raises:
        ServerError: If a tensor differs, is missing, or has no digest.
    """
    remaining = dict(digests)
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        for file in weight_files(folder) if digests else ():
            with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
                for name, is_same in _compared(content, read_spans(file), remaining, pool):
                    if not is_same:
                        raise ServerError(f"{name} in {file} is not the tensor that was sent")
                    del remaining[name]
    if remaining:
        raise ServerError(f"{', '.join(sorted(remaining))}: sent, but in no file of {folder}")


def _compared(
    content: mmap.mmap, spans: Mapping[str, Span], digests: Mapping[str, str], pool: ThreadPoolExecutor
) -> list[tuple[str, bool]]:
    """Return whether each tensor in a file has its digest, by name; threads, because hashing releases Python's lock."""
    with memoryview(content) as view:

        def is_same(name: str) -> bool:
            with view[slice(*spans[name])] as tensor:
                return has_digest(tensor, digests.get(name, ""))

        return list(zip(spans, pool.map(is_same, spans), strict=True))


def _some(names: Sequence[str]) -> str:
    return (", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")) or "none"
