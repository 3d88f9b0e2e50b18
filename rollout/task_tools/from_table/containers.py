"""Unpack the file of a table from an archive or a compressed file that holds only it."""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

from tasks.quoting import quoted, quoted_list

COMPRESSED: Mapping[bytes, tuple[str, Callable[[bytes], bytes]]] = {
    b"\x1f\x8b": ("gzip", gzip.decompress),
    b"BZh": ("bzip2", bz2.decompress),
    b"\xfd7zXZ\x00": ("xz", lzma.decompress),
}
ZIP = b"PK\x03\x04"
WORKBOOK = "xl/workbook.xml"  # the part of a zip archive that makes it an Excel workbook
# Parts by which other workbooks are told from archives.
OTHER_WORKBOOKS = {"xl/workbook.bin": "a binary Excel workbook", "content.xml": "an OpenDocument workbook"}
DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, ValueError)


def unpacked(file: Path, data: bytes) -> bytes:
    """Return the content of a table's file, unpacked if it is compressed or alone in a zip archive.

    Args:
        file: The file, for messages.
        data: Its bytes.

    Raises:
        ValueError: If the archive is damaged, protected by a password, or holds more than one file.
    """
    for mark, (name, decompress) in COMPRESSED.items():
        if data.startswith(mark):
            try:
                return decompress(data)
            except DAMAGE as error:
                raise ValueError(f"{file}: the {name} data are damaged or cut short ({error}); copy it again") from None
    if data.startswith(ZIP) and not is_workbook(data):
        return _alone_in_zip(file, data)
    return data


def is_workbook(data: bytes) -> bool:
    """Return whether a file is an Excel workbook, which is a zip archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return WORKBOOK in archive.namelist()
    except DAMAGE:
        return False


def _alone_in_zip(file: Path, data: bytes) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for part, what in OTHER_WORKBOOKS.items():
                if part in archive.namelist():
                    raise ValueError(f"{file} is {what}; save it as .xlsx or CSV")
            members = [each for each in archive.infolist() if not (each.is_dir() or _is_macos(each.filename))]
            if len(members) != 1:
                names = quoted_list([each.filename for each in members])
                raise ValueError(
                    f"{file} is a zip archive of {len(members)} files{': ' * bool(members)}{names}; unpack it and pass "
                    "the table's file"
                )
            (member,) = members
            if member.flag_bits & 1:
                raise ValueError(f"{file}: {quoted(member.filename)} is protected by a password; unpack it")
            return archive.read(member)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise ValueError(f"{file}: the zip archive is damaged or cut short ({error}); copy it again") from None


def _is_macos(name: str) -> bool:
    """Return whether a member of an archive is what macOS adds to it."""
    return name.startswith("__MACOSX/") or name.rpartition("/")[2] in (".DS_Store", "Thumbs.db")
