"""The raw files of a competition, for prepare scripts: plain, or in the archives that they are delivered in."""

import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

ARCHIVES = (".zip", ".7z")
NAMED = 5  # how many names a reason spells out


@contextmanager
def open_raw(raw: Path, beside: Path) -> Iterator["Raw"]:
    """Yield the files in `raw`, which stay as they are: what is packed is unpacked `beside` another folder for now."""
    with tempfile.TemporaryDirectory(dir=beside.parent) as aside:
        yield Raw(raw, Path(aside))


@dataclass(frozen=True)
class Raw:
    """The files of a competition.

    Attributes:
        place: the folder that they are in, packed or not.
        aside: another one, for what is unpacked.
    """

    place: Path
    aside: Path

    def path(self, name: str) -> Path:
        """Return where the file or folder `name` is; of the archives, and those in them, no more is unpacked.

        It stands there as it is, as `name/name`, or in an archive: first in those called after it, such as
        `train.csv.zip` or `train.zip` for `train.csv`, then in any other, that of the whole competition.

        Raises:
            ValueError: if it is nowhere there, or an archive cannot be read.
        """
        found = self._find(self.place, name)
        if found is None:
            raise ValueError(
                f"there is no {name} in {self.place}, nor in an archive there; put there all that the competition has"
            )
        return found

    def folder(self, name: str, files: Iterable[str]) -> Path:
        """Return where the folder `name` is. Raises ValueError unless all of `files` are in it."""
        found, wanted = self.path(name), list(files)
        missing = [file for file in wanted if not (found / file).is_file()]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(wanted)} files are missing from {self.place / name}: {_listed(missing)}; "
                "download it again"
            )
        return found

    def table(self, name: str, columns: Sequence[str], dtype: type = str) -> "pd.DataFrame":
        """Return the CSV file `name`, by default with its cells as the text that they are, empty ones included.

        Args:
            name: of the file.
            columns: some that it must have, the last one of the file among them, at their end.
            dtype: of all cells.

        Raises:
            ValueError: if it is not there, or not such a table.
        """
        import pandas as pd  # here, since `unpack` serves those who have no table to read

        file, said = self.path(name), self.place / name
        try:
            table = pd.read_csv(file, dtype=dtype, keep_default_na=False)
        except (ValueError, OverflowError) as error:
            raise ValueError(
                f"{said} is not the CSV file that it should be ({_brief(error)}); download it again"
            ) from None
        missing = [column for column in columns if column not in table]
        if missing:
            raise ValueError(
                f"{said} has no column {missing[0]}, but {_listed(list(table.columns))}; expected {_listed(columns)} "
                "among others; is it of this competition?"
            )
        incomplete = len(table[table[columns[-1]] == ""])
        if incomplete:
            raise ValueError(f"{said} has {incomplete} incomplete rows, without {columns[-1]}; download it again")
        return table

    def _find(self, place: Path, name: str) -> Path | None:
        for found in (place / name / name, place / name):  # Kaggle's train/train, MLE-bench's train.csv/train.csv
            if found.exists():
                return found
        called_after = [f"{stem}{suffix}" for stem in dict.fromkeys((name, Path(name).stem)) for suffix in ARCHIVES]
        likely = [place / archive for archive in called_after if (place / archive).is_file()]
        others = [path for path in sorted(place.iterdir()) if path.suffix in ARCHIVES and path not in likely]
        for archive in (*likely, *others):
            for wanted in (name, *called_after):
                into = Path(tempfile.mkdtemp(dir=self.aside))
                unpack(archive, into, wanted)
                unpacked = min(into.rglob(wanted), key=lambda path: len(path.parts), default=None)
                found = self._find(unpacked.parent, name) if unpacked is not None else None
                if found is not None:
                    return found
        return None


def unpack(archive: Path, into: Path, name: str | None = None) -> None:
    """Unpack a zip or 7z archive into a folder: everything, or what is called `name` or lies in a folder called so.

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
        raise ValueError(f"{archive.name} is read with py7zr, which is not installed; pip install py7zr") from None
    except Exception as error:  # damaged archives end in any of a dozen errors, those of several codecs
        if isinstance(error, OSError) and error.errno is not None:  # of the disk, such as a full one
            raise
        raise ValueError(f"{archive.name} cannot be read ({_brief(error)}); download it again") from error


def _opened(archive: Path):
    if archive.suffix == ".7z":
        from py7zr import SevenZipFile  # installed only where somebody needs it

        return SevenZipFile(archive)
    return zipfile.ZipFile(archive)


def write_zip(target: Path, files: Mapping[str, Path]) -> None:
    """Write a zip archive of `files` by their names in it; the same files make the same archive, to the byte."""
    with zipfile.ZipFile(target, "w") as archive:
        for name, path in files.items():
            archive.writestr(zipfile.ZipInfo(name), path.read_bytes())  # a ZipInfo of its own has no time of today


def _listed(names: Sequence[str]) -> str:
    rest = [f"... ({len(names)} in all)"] if len(names) > NAMED else []
    return ", ".join([*(name[:40] for name in names[:NAMED]), *rest])


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
