"""Which packages a result comes from."""

import importlib.metadata
import platform
from collections.abc import Iterable


def versions(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python and of those packages that are installed here."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
