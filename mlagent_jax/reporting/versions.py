"""Versions of the installed packages."""

import importlib.metadata
import platform
from collections.abc import Iterable


def versions(names: Iterable[str]) -> dict[str, str]:
    """Return the version of Python and of those packages that are installed, by name."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
