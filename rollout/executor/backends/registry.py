"""The list of sandbox backends; a new backend adds one line."""

import importlib

from rollout.executor.backends.base import SandboxBackend
from rollout.options import ExecutorOptions
from rollout.storage.blob_store import BlobStore

# `executor.isolation` -> module:Class. A backend is imported only if it is used.
BACKENDS = {
    "bubblewrap": "rollout.executor.backends.bubblewrap:BubblewrapBackend",
    "landlock": "rollout.executor.backends.landlock:LandlockBackend",
    "ray": "rollout.executor.backends.ray:RayBackend",
}


def open_backend(options: ExecutorOptions, store: BlobStore, fresh: bool = False) -> SandboxBackend:
    """Return an open backend that has passed its self-test.

    Args:
        options: The section `executor` of the configuration.
        store: The blob store that holds the content of jobs' files.
        fresh: Whether every script must start an interpreter of its own, even if the backend can fork one.

    Raises:
        ValueError: If the options do not fit, or the backend or the task interpreter does not work. SandboxUnavailable
            is a subclass.
    """
    check_options(options)
    backend = backend_class(_name(options)).from_options(options, store, fresh)
    try:
        backend.self_test()
    except BaseException:
        backend.close()
        raise
    return backend


def check_options(options: ExecutorOptions) -> None:
    """Raise ValueError unless `executor.isolation` names a backend that supports the other options."""
    capabilities = backend_class(options.isolation).capabilities
    conflict = ""
    if options.ray_address is not None and options.isolation not in ("bubblewrap", "ray"):
        conflict = f"ray_address={options.ray_address}"  # the nodes use bubblewrap
    elif options.gpus and not capabilities.gpus:
        conflict = f"gpus={list(options.gpus)}"
    if conflict:
        raise ValueError(
            f"executor.isolation={options.isolation} does not go with executor.{conflict}; leave that out, or set "
            "executor.isolation=bubblewrap"
        )


def backend_class(name: str) -> type[SandboxBackend]:
    """Return the backend of a value of `executor.isolation`.

    Raises:
        ValueError: If there is no such backend, or a package that it needs is not installed.
    """
    module, _, attribute = BACKENDS.get(name, name).partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if name in BACKENDS:
            raise ValueError(
                f"executor backend {name}: {error.name} is not installed; install the packages of that backend (for "
                "ray: `pip install 'mlagent-jax[cluster]'`)"
            ) from error
        cause: Exception = error
    except (AttributeError, ValueError) as error:
        cause = error
    else:
        if hasattr(found, "capabilities") and hasattr(found, "from_options"):
            return found
        cause = TypeError("it has no `capabilities` and `from_options`")
    raise ValueError(
        f"executor.isolation={name} is not a sandbox backend ({cause}); expected {', '.join(BACKENDS)} or module:Class"
    ) from cause


def _name(options: ExecutorOptions) -> str:
    return "ray" if options.ray_address is not None else options.isolation
