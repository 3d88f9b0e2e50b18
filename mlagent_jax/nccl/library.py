"""NCCL and the CUDA runtime by ctypes, as far as rank 0 of a broadcast needs them."""

import ctypes
import site
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

NCCL, CUDART = "libnccl.so.2", "libcudart.so"  # the second name is followed by the version
ID_BYTES = 128
UINT8, FLOAT32, SUM = 1, 7, 0  # ncclDataType_t and ncclRedOp_t
NON_BLOCKING = 1  # cudaStreamNonBlocking: the stream does not wait for JAX's, whose arrays are ready by then
POINTER, INT, SIZE = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t


class UniqueId(ctypes.Structure):
    """The `ncclUniqueId` of a group, which is passed by value."""

    _fields_ = (("internal", ctypes.c_byte * ID_BYTES),)


class NcclError(RuntimeError):
    """A call of NCCL or of the CUDA runtime that failed."""


class NcclLibrary:
    """The functions of the two libraries; each raises NcclError if it fails."""

    def __init__(self, nccl: str | None = None, cudart: str | None = None) -> None:
        """Load the libraries.

        Args:
            nccl: The path of NCCL; None for the one that JAX has installed, or else the system's.
            cudart: The path of the CUDA runtime; None likewise.

        Raises:
            ValueError: If one of them cannot be loaded.
        """
        nccl, cudart = nccl or find_library(NCCL), cudart or find_library(f"{CUDART}*")
        try:
            self._nccl, self._cuda = ctypes.CDLL(nccl), ctypes.CDLL(cudart)
        except OSError as error:
            raise ValueError(
                f"server.weight_transfer=nccl needs NCCL and the CUDA runtime, which cannot be loaded ({error}); "
                "install jax[cuda13], or set server.weight_transfer=files"
            ) from None
        self._nccl.ncclGetErrorString.restype = ctypes.c_char_p
        self._cuda.cudaGetErrorString.restype = ctypes.c_char_p

    def unique_id(self) -> bytes:
        """Return the id of a new group."""
        found = UniqueId()
        self._call("ncclGetUniqueId", [POINTER], ctypes.byref(found))
        return bytes(found)

    def use_device(self, device: int) -> None:
        """Make the calls of this thread use a GPU, by its number among those that this process sees."""
        self._call("cudaSetDevice", [INT], device)

    def new_stream(self) -> int:
        """Return a new stream on the device in use."""
        stream = POINTER()
        self._call("cudaStreamCreateWithFlags", [POINTER, ctypes.c_uint], ctypes.byref(stream), NON_BLOCKING)
        return stream.value or 0

    def synchronize(self, stream: int) -> None:
        """Wait for all that was put on a stream."""
        self._call("cudaStreamSynchronize", [POINTER], stream)

    def join(self, unique_id: bytes, num_ranks: int) -> int:
        """Join a group as rank 0, and return the communicator once all other ranks have joined."""
        communicator = POINTER()
        group = UniqueId.from_buffer_copy(unique_id)
        self._call("ncclCommInitRank", [POINTER, INT, UniqueId, INT], ctypes.byref(communicator), num_ranks, group, 0)
        return communicator.value or 0

    def all_reduce(self, pointer: int, communicator: int, stream: int) -> None:
        """Sum one fp32 value over all ranks, in place."""
        kinds = [POINTER, POINTER, SIZE, INT, INT, POINTER, POINTER]
        self._call("ncclAllReduce", kinds, pointer, pointer, 1, FLOAT32, SUM, communicator, stream)

    def broadcast(self, buffers: Sequence[tuple[int, int]], communicator: int, stream: int) -> None:
        """Put the broadcast of buffers, each a pointer and a number of bytes, from rank 0 on a stream."""
        kinds = [POINTER, POINTER, SIZE, INT, INT, POINTER, POINTER]
        for pointer, size in buffers:
            self._call("ncclBroadcast", kinds, pointer, pointer, size, UINT8, 0, communicator, stream)

    def abort(self, communicator: int) -> None:
        """End a group whose other ranks may be gone; calls that wait for them return."""
        self._call("ncclCommAbort", [POINTER], communicator)

    def _call(self, name: str, kinds: Sequence[type], *arguments: object) -> None:
        library = self._nccl if name.startswith("nccl") else self._cuda
        function: Callable[..., int] = getattr(library, name)
        function.argtypes, function.restype = kinds, INT  # pyright: ignore[reportFunctionMemberAccess]
        status = function(*arguments)
        if status != 0:
            explain = library.ncclGetErrorString if library is self._nccl else library.cudaGetErrorString
            raise NcclError(f"{name} failed: {explain(status).decode()}")


def find_library(pattern: str) -> str:
    """Return the path of a library in NVIDIA's packages, or its name for the system's loader."""
    folders = {Path(each) / "nvidia" for each in (*site.getsitepackages(), *sys.path) if each}
    found = sorted(path for folder in folders if folder.is_dir() for path in folder.glob(f"*/lib/{pattern}"))
    return str(found[-1]) if found else pattern.rstrip("*")
