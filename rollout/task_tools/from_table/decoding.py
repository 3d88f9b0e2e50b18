"""Decode a user's file: find its encoding, or say which byte of which line is not text."""

import codecs
import re
from pathlib import Path

from tasks.quoting import quoted

# Order matters: the mark of UTF-32 begins with that of UTF-16.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
SIGNATURES = (
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook; save it as .xlsx"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it"),
    (b"Rar!", "a rar archive; unpack it"),
    (b"SQLite format 3\x00", "an SQLite database; write the table as CSV"),
    (b"\x89HDF", "an HDF5 file; write the table as CSV"),
    (b"\x93NUMPY", "a NumPy file; write the table as CSV"),
    (b"\x80\x04\x95", "a pickle; write the table as CSV"),
    (b"\x80\x05\x95", "a pickle; write the table as CSV"),
    (b"%PDF", "a PDF document; write the table as CSV"),
    (b"<", "a web page or an XML file; write the table as CSV"),
)
EXAMPLES = "utf-8, utf-16, cp1252 or latin-1"
WESTERN = ("cp1252", "iso8859-1", "iso8859-15", "mac-roman")  # whose letters with accents are never UTF-8 by chance
LINE_BREAK = re.compile(r"\r\n|\r|\n")


def decode(file: Path, data: bytes, encoding: str | None = None) -> str:
    """Return the text of a file without its byte order mark.

    Args:
        file: The file, for messages.
        data: Its bytes.
        encoding: The name of a codec; if None, a byte order mark decides, and UTF-8 is the default.

    Raises:
        ValueError: If it is not text in this encoding. The message names the line.
    """
    for signature, what in SIGNATURES:
        if data.lstrip().startswith(signature):
            raise ValueError(f"{file} cannot be read as a table: it is {what}")
    codec = _codec(file, data, encoding)
    try:
        text = data.decode(codec).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = line_of(data[: error.start].decode(codec, "replace"))
        stated = f"--encoding is {encoding}; pass another" if encoding else "pass its encoding with --encoding"
        raise ValueError(
            f"{file}: line {line} is not {codec.upper()} text (byte 0x{data[error.start]:02x}); {stated}, such as "
            f"{EXAMPLES}"
        ) from None
    if "\0" in text:
        utf_16 = "utf-16-be" if text.startswith("\0") else "utf-16-le"
        raise ValueError(
            f"{file}: line {line_of(text[: text.index(chr(0))])} has a NUL character, so it is not {codec.upper()} "
            f"text; if it is UTF-16, pass --encoding {utf_16}, otherwise write the table as CSV"
        )
    if codec in WESTERN:
        _require_western(file, data, text, encoding)
    return text


def _require_western(file: Path, data: bytes, text: str, encoding: str | None) -> None:
    """Raise ValueError if a text that every byte is a letter of is probably in another encoding."""
    try:
        if not data.isascii() and data.decode("utf-8"):
            raise ValueError(f"{file} is UTF-8 text, but --encoding is {encoding}; leave it out")
    except UnicodeDecodeError:
        pass
    if control := re.search("[\x80-\x84\x86-\x9f]", text):
        line, byte = line_of(text[: control.start()]), ord(control[0])
        raise ValueError(
            f"{file}: byte 0x{byte:02x} of line {line} is no character of {encoding}; pass another encoding, such as "
            "cp1252"
        )


def line_of(text_before: str) -> int:
    """Return the number of the line that follows this text."""
    return len(LINE_BREAK.findall(text_before)) + 1


def read_bytes(file: Path) -> bytes:
    """Return the bytes of a file. Raises ValueError if there is no such file."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"there is no file {file}") from None
    except IsADirectoryError:
        raise ValueError(f"{file} is a folder; expected the file of a table") from None
    except PermissionError:
        raise ValueError(f"{file} may not be read by this user; change its permissions") from None


def require_content(file: Path, data: bytes) -> bytes:
    """Return the bytes of a file. Raises ValueError if there is nothing in them."""
    if not data.strip(b" \t\r\n\0"):
        raise ValueError(f"{file} is empty; expected a table with a header")
    return data


def _codec(file: Path, data: bytes, encoding: str | None) -> str:
    """Return the codec that is stated or that the byte order mark says. Raises ValueError if the two differ."""
    marked = next((codec for mark, codec in BYTE_ORDER_MARKS if data.startswith(mark)), None)
    if encoding is None:
        return marked or "utf-8"
    try:
        "a".encode(encoding)  # raises for codecs such as hex, which are not about text
        stated = codecs.lookup(encoding).name
    except (LookupError, ValueError):
        raise ValueError(f"--encoding is {quoted(encoding)}, which is no text encoding; expected {EXAMPLES}") from None
    if marked is not None and not stated.startswith(marked):
        raise ValueError(
            f"{file} begins with the byte order mark of {marked.upper()}, but --encoding is {encoding}; leave it out"
        )
    return stated
