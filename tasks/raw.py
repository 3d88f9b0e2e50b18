"""Access for prepare scripts to a competition's raw files, plain or in the archives in which they are delivered."""

import re
import tempfile
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

ARCHIVES = (".zip", ".7z")
WRONG_ROW = re.compile(r"Expected (\d+) fields in line (\d+), saw (\d+)")
NUM_LISTED = 5  # names that an error message lists


@contextmanager
def open_raw(raw: Path, beside: Path) -> Iterator["Raw"]:
    """Yield the files in `raw`, which is not changed: archives are unpacked to a temporary folder next to `beside`."""
    with tempfile.TemporaryDirectory(dir=beside.parent) as unpacked:
        yield Raw(raw, Path(unpacked))


@dataclass(frozen=True)
class Raw:
    """The files of a competition.

    Attributes:
        source: The folder of the files, packed or not.
        unpacked: The folder for unpacked files.
    """

    source: Path
    unpacked: Path

    def path(self, name: str) -> Path:
        """Return the path of the file or folder `name`, unpacking no more of the (nested) archives than it needs.

        Looks for `name`, for `name/name`, and then in archives: first those named after it, such as `train.csv.zip` or
        `train.zip` for `train.csv`, then any other, such as that of the whole competition.

        Raises:
            ValueError: If it is not found, or an archive cannot be read.
        """
        found = self._find(self.source, name)
        if found is None:
            raise ValueError(
                f"there is no {name} in {self.source}, nor in an archive there; put the competition's files there"
            )
        return found

    def folder(self, name: str, files: Iterable[str]) -> Path:
        """Return the path of the folder `name`. Raises ValueError unless all of `files` are in it."""
        found, wanted = self.path(name), list(files)
        missing = [file for file in wanted if not (found / file).is_file()]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(wanted)} files are missing from {self.source / name}: {_listed(missing)}; "
                "download it again"
            )
        return found

    def table(self, name: str, columns: Sequence[str], dtype: type = str) -> "pd.DataFrame":
        """Return the CSV file `name`, by default with every cell as text, empty ones included.

        Args:
            name: The name of the file.
            columns: Columns that the file must have. The last of them must be the file's last column: an empty cell
                there reveals a truncated row.
            dtype: The type of all cells.

        Raises:
            ValueError: If the file is missing or is not such a table.
        """
        import pandas as pd  # here, because `unpack` is used without pandas

        from tasks.text_table import read_names

        file, shown = self.path(name), self.source / name
        try:
            with warnings.catch_warnings():
                # Without `index_col`, a surplus field in every row makes the first column an index and shifts the rest.
                warnings.simplefilter("error", pd.errors.ParserWarning)
                table = pd.read_csv(file, dtype=dtype, keep_default_na=False, index_col=False)
            read_names(file)
        except (ValueError, OverflowError, pd.errors.ParserWarning) as error:
            raise ValueError(f"{shown} is not the expected CSV file: {_fault(error)}; download it again") from None
        missing = [column for column in columns if column not in table]
        if missing:
            raise ValueError(
                f"{shown} has no column {missing[0]}, only {_listed(list(table.columns))}; expected {_listed(columns)} "
                "among others; is it from this competition?"
            )
        incomplete = len(table[table[columns[-1]] == ""])
        if incomplete:
            raise ValueError(f"{shown} has {incomplete} incomplete rows, without {columns[-1]}; download it again")
        return table

    def _find(self, folder: Path, name: str) -> Path | None:
        for found in (folder / name / name, folder / name):  # Kaggle's train/train, MLE-bench's train.csv/train.csv
            if found.exists():
                return found
        archives = [f"{stem}{suffix}" for stem in dict.fromkeys((name, Path(name).stem)) for suffix in ARCHIVES]
        likely = [folder / archive for archive in archives if (folder / archive).is_file()]
        others = [path for path in sorted(folder.iterdir()) if path.suffix in ARCHIVES and path not in likely]
        for archive in (*likely, *others):
            for wanted in (name, *archives):
                into = Path(tempfile.mkdtemp(dir=self.unpacked))
                unpack(archive, into, wanted)
                unpacked = min(into.rglob(wanted), key=lambda path: len(path.parts), default=None)
                found = self._find(unpacked.parent, name) if unpacked is not None else None
                if found is not None:
                    return found
        return None


def unpack(archive: Path, into: Path, name: str | None = None) -> None:
    """Unpack a zip or 7z archive into a folder, either all of it or the files named `name` or in folders named `name`.

    Raises ValueError if it cannot be read.
    """
    try:
        with _opened(archive) as packed:
            members = [member for member in packed.namelist() if name in (None, *PurePosixPath(member).parts)]
            if isinstance(packed, zipfile.ZipFile):
                packed.extractall(into, members)
            else:
                packed.extract(into, members)
    except ImportError:
        raise ValueError(f"reading {archive.name} needs py7zr, which is not installed; pip install py7zr") from None
    except Exception as error:  # a damaged archive raises any of a dozen errors of several codecs
        if isinstance(error, OSError) and error.errno is not None:  # a fault of the disk, such as a full one
            raise
        raise ValueError(f"{archive.name} cannot be read ({_brief(error)}); download it again") from error


def _opened(archive: Path):
    if archive.suffix == ".7z":
        from py7zr import SevenZipFile  # an optional dependency

        return SevenZipFile(archive)
    return zipfile.ZipFile(archive)


def write_zip(target: Path, files: Mapping[str, Path]) -> None:
    """Write a zip archive of `files`, a mapping from names in the archive; equal files give equal bytes."""
    with zipfile.ZipFile(target, "w") as archive:
        for name, path in files.items():
            archive.writestr(zipfile.ZipInfo(name), path.read_bytes())  # the ZipInfo has a constant time stamp


def _listed(names: Sequence[str]) -> str:
    rest = [f"... ({len(names)} in all)"] if len(names) > NUM_LISTED else []
    return ", ".join([*(name[:40] for name in names[:NUM_LISTED]), *rest])


def _fault(error: Exception) -> str:
    """Return what is wrong with a table that pandas or `read_names` cannot read."""
    kind, said = type(error).__name__, str(error)
    if row := WRONG_ROW.search(said):
        return f"line {row[2]} has {row[3]} fields, but the lines before it have {row[1]}"
    known = {
        "EmptyDataError": "it is empty",
        "ParserWarning": "its rows have more fields than its header",
        "UnicodeDecodeError": "it is not UTF-8 text",
    }
    reason = known.get(kind, said.partition("is not a CSV table: ")[2])
    return reason or f"a cell is not of its column's type ({_brief(error)})"


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
