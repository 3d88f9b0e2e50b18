"""Unpack the file of a table from an archive or a compressed file that holds only it."""

import bz2
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

from tasks.quoting import quoted, quoted_list

COMPRESSED: Mapping[re.Pattern[bytes], tuple[str, Callable[[bytes], bytes]]] = {
    re.compile(rb"\x1f\x8b"): ("gzip", gzip.decompress),
    re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"): ("bzip2", bz2.decompress),
    re.compile(rb"\xfd7zXZ\x00"): ("xz", lzma.decompress),
}
ZIP, EMPTY_ZIP = b"PK\x03\x04", b"PK\x05\x06"
WORKBOOK = "xl/workbook.xml"  # the part of a zip archive that makes it an Excel workbook
# Parts by which other workbooks are told from archives.
OTHER_WORKBOOKS = {"xl/workbook.bin": "a binary Excel workbook", "content.xml": "an OpenDocument workbook"}
# Exceptions that the libraries raise for damaged archives and for unknown kinds of archives.
DAMAGE = (
    *(OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile),
    *(ValueError, NotImplementedError, RuntimeError),
)


def unpacked(file: Path, data: bytes) -> bytes:
    """Return the content of a table's file, unpacked if it is compressed or alone in a zip archive.

    Args:
        file: The file, for messages.
        data: Its bytes.

    Raises:
        ValueError: If the archive is damaged, protected by a password, or holds more than one file or another archive.
    """
    content = _decompressed(file, data)
    if content is None and data.startswith((ZIP, EMPTY_ZIP)) and not is_workbook(data):
        content = _alone_in_zip(file, data)
    if content is None:
        return data
    if any(mark.match(content) for mark in COMPRESSED) or (content.startswith(ZIP) and not is_workbook(content)):
        raise ValueError(f"{file} holds another archive; unpack it and pass the table's file")
    return content


def is_workbook(data: bytes) -> bool:
    """Return whether a file is an Excel workbook, which is a zip archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return WORKBOOK in archive.namelist()
    except DAMAGE:
        return False


def _decompressed(file: Path, data: bytes) -> bytes | None:
    """Return the content of a compressed file, None if it is none."""
    for mark, (name, decompress) in COMPRESSED.items():
        if mark.match(data):
            try:
                return decompress(data)
            except DAMAGE as error:
                raise ValueError(f"{file}: the {name} data are damaged or cut short ({error}); copy it again") from None
    return None


def _alone_in_zip(file: Path, data: bytes) -> bytes:
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except DAMAGE as error:
        raise ValueError(f"{file}: the zip archive is damaged or cut short ({error}); copy it again") from None
    with archive:
        members = [each for each in archive.infolist() if not (each.is_dir() or _is_of_system(each.filename))]
        names = [each.filename for each in members]
        for part, what in OTHER_WORKBOOKS.items():
            if part in names:
                raise ValueError(f"{file} is {what}; save it as .xlsx or CSV")
        if len(members) != 1:
            listed = f": {quoted_list(names)}" if names else ""
            raise ValueError(f"{file} is a zip archive of {len(names)} files{listed}; pass the file of the table")
        (member,) = members
        if member.flag_bits & 1:
            raise ValueError(f"{file}: {quoted(member.filename)} is protected by a password; unpack it")
        try:
            return archive.read(member)
        except DAMAGE as error:
            raise ValueError(f"{file}: {quoted(member.filename)} in it is damaged ({error}); copy it again") from None


def _is_of_system(name: str) -> bool:
    """Return whether a member of an archive is what macOS or Windows adds to it."""
    return name.startswith("__MACOSX/") or name.rpartition("/")[2] in (".DS_Store", "Thumbs.db")
