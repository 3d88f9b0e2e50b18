"""Find the failed call of the system in an error of a library, which gives its number only in its text."""

import os
import re
import shutil
from pathlib import Path

NUMBER = re.compile(r"(?:\[Errno |os_error_code='|os error )(\d+)")  # as Python, tensorstore and safetensors write it


def system_error(error: Exception, path: Path) -> OSError | None:
    """Return the OSError that an error of a library stands for, such as a full disk, None if it names none.

    Args:
        error: The error of the library.
        path: The file or folder that was written.
    """
    found = NUMBER.search(str(error))
    return OSError(int(found[1]), os.strerror(int(found[1])), str(path)) if found else None


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
