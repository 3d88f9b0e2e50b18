"""Find the failed call of the system in an error of a library, which gives its number only in its text."""

import os
import re
from pathlib import Path

NUMBER = re.compile(r"os[_ ]error(?:_code='| )(\d+)")  # as tensorstore and safetensors write it


def system_error(error: Exception, path: Path) -> OSError | None:
    """Return the OSError that an error of a library stands for, such as a full disk, None if it names none.

    Args:
        error: The error of the library.
        path: The file or folder that was written.
    """
    found = NUMBER.search(str(error))
    return OSError(int(found[1]), os.strerror(int(found[1])), str(path)) if found else None
