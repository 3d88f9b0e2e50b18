"""Find the failed call of the system in an error of a library, which gives its number only in its text."""

import errno
import os
import re
import shutil
from pathlib import Path

# As Python, Arrow, tensorstore and safetensors write it.
NUMBER = re.compile(r"(?:\[Errno |os_error_code='|os error )(\d+)", re.IGNORECASE)
FULL = {os.strerror(number): number for number in (errno.ENOSPC, errno.EDQUOT)}


def system_error(error: BaseException, path: Path | str) -> OSError | None:
    """Return the OSError that an error of a library stands for, such as a full disk, None if it names none.

    A library may raise its own error from the system's, or keep only the text of it.

    Args:
        error: The error of the library.
        path: The file or folder that was written.
    """
    cause: BaseException | None = error
    while cause is not None:
        number = cause.errno if isinstance(cause, OSError) and cause.errno else _number_in(str(cause))
        if number:
            return OSError(number, os.strerror(number), str(path))
        cause = cause.__cause__
    return None


def _number_in(text: str) -> int | None:
    found = NUMBER.search(text)
    return int(found[1]) if found else next((number for words, number in FULL.items() if words in text), None)


def copy_folder(source: Path, target: Path, without: tuple[str, ...] = ()) -> None:
    """Copy a folder into another, which may exist, as readable as any new file.

    Args:
        source: The folder to copy.
        target: The folder to write.
        without: The names that are left out.

    Raises:
        OSError: If a file cannot be copied, as on a full disk.
    """
    ignore = shutil.ignore_patterns(*without)
    try:
        shutil.copytree(source, target, ignore=ignore, copy_function=shutil.copyfile, dirs_exist_ok=True)
    except shutil.Error as error:  # of all files, as text
        raise system_error(error, target) or error from None
