"""Write the tensors of one safetensors file on several threads, each at its place."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import jax
import numpy as np

from mlagent_jax.model.placement import whole
from rollout.storage.atomic_write import replacing
from rollout.storage.safetensors_layout import layout
from rollout.storage.tensor_digest import NUM_THREADS, tensor_digest

Deferred = Callable[[], jax.Array | np.ndarray]  # a function that computes a tensor when it is due


def write_tensors(
    path: Path,
    tensors: Iterator[tuple[str, Deferred]],
    shapes: Mapping[str, Sequence[int]],
    dtype: str,
    digest: bool,
    held: Mapping[str, str],
) -> dict[str, str]:
    """Write a safetensors file and return the digests of its tensors, computed before they are written.

    Computing, fetching from the devices, hashing and writing of different tensors overlap. If tensors lie on several
    processes, one after the other is gathered instead, because all processes must gather them in the same order.

    Args:
        path: The file; it is replaced, unless `held` has digests.
        tensors: Every (name, tensor) in the order of `shapes`.
        shapes: The shape of each tensor.
        dtype: The type of all tensors.
        digest: Whether to compute digests; without them the result is empty.
        held: The digests of the tensors that the file holds. Those that still have them are not written again, and
            the others are written over the old ones, whose memory in a memory file system is reused.
    """
    start, spans = layout(shapes, dtype)
    pending: deque[tuple[str, Future[str]]] = deque()
    digests: dict[str, str] = {}
    gather = jax.process_count() > 1
    in_place = bool(held) and _begins_with(path, start)
    with _opened(path, in_place) as file, ThreadPoolExecutor(NUM_THREADS) as pool:
        if not in_place:
            held = {}
            _write(file, memoryview(start), 0)
        for name, tensor in tensors:
            ready = partial(np.asarray, whole(tensor())) if gather else tensor
            pending.append((name, pool.submit(_store, file, ready, spans[name][0], digest, held.get(name))))
            if len(pending) > 2 * NUM_THREADS:  # bounds the tensors in memory
                name, stored = pending.popleft()
                digests[name] = stored.result()
        digests |= {name: stored.result() for name, stored in pending}
    return digests if digest else {}


@contextmanager
def _opened(path: Path, in_place: bool) -> Iterator[int]:
    """Yield a descriptor of a file to write in place, or of one that replaces it; raises OSError for `path`."""
    try:
        if in_place:
            with path.open("r+b", buffering=0) as file:
                yield file.fileno()
        else:
            with replacing(path, durable=False) as temporary, temporary.open("wb", buffering=0) as file:
                yield file.fileno()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _begins_with(path: Path, start: bytes) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(start)) == start


def _store(file: int, tensor: Deferred, offset: int, digest: bool, held: str | None) -> str:
    """Compute a tensor, write it to its place unless it is `held` there, and return its digest, `` without one."""
    content = np.ascontiguousarray(tensor()).reshape(-1).view(np.uint8).data
    found = tensor_digest(content) if digest else ""
    if not held or found != held:
        _write(file, content, offset)
    return found


def _write(file: int, content: memoryview, offset: int) -> None:
    done = 0
    while done < len(content):  # Linux writes at most 2 GiB at a time
        done += os.pwrite(file, content[done:], offset + done)
