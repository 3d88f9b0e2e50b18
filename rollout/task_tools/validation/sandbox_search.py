"""Search everything that a script can read for a task's test rows. Runs alone, as a script in a sandbox.

The input is `search.json` in the working directory: `tables` (files with the test rows' features), `id` (their id
column), `hashes` (SHA-256 of the task's other files), `own` (further files of the task in the workspace) and `roots`
(the folders to search). The output is a line `found SHARE SOURCE` for each source that holds test rows, and then
`searched N files, N loaders, N tables`. Nothing hidden enters the sandbox: the features are enough, because a source
that contains the rows contains their labels too.
"""

# pandas' type stubs list every possible return type.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

import bz2
import contextlib
import gzip
import hashlib
import importlib
import inspect
import io
import json
import lzma
import os
import pickle
import pkgutil
import re
import signal
import socket
import sys
import tarfile
import time
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

NUM_ROWS = 50  # test rows to search for
AGREEING = 0.9  # share of columns in which a row must agree
MIN_SHARE = 0.2  # share of rows from which a source is reported
MAX_CELLS = 20_000_000  # a larger table is searched only in its first rows
MAX_COLUMNS = 1000
MAX_BYTES = 1 << 28  # of a file
NEEDLE = re.compile(r"[A-Za-z ,]{24,60}")
CODE = (".py", ".pyc", ".pyi", ".pyx", ".pxd", ".h", ".hpp", ".c", ".f90", ".so", ".a", ".o")
LOADER_SECONDS = 20


class Wanted:
    """The test rows to search for: their cells as codes, and passages of their texts."""

    def __init__(self, test: pd.DataFrame) -> None:
        rows = test.sample(min(NUM_ROWS, len(test)), random_state=0)
        self.names = [str(name) for name in rows]
        numeric = [pd.api.types.is_numeric_dtype(rows[name]) for name in rows]
        numbers = [rows[name].to_numpy(float) for name, is_number in zip(rows, numeric, strict=True) if is_number]
        self.numbers = np.unique(np.concatenate(numbers)[np.isfinite(np.concatenate(numbers))]) if numbers else None
        texts = pd.unique(np.concatenate([normal(rows[name]) for name in rows])) if self.names else []
        self.texts = {text: number for number, text in enumerate(texts)}
        self.codes = self.encode(rows)  # [R, C]
        self.varies = np.array([len(np.unique(column)) > 1 for column in self.codes.T])
        self.shares = self.count(self.encode(test))
        rng = np.random.default_rng(0)
        self.decoys = np.column_stack([rng.permutation(column) for column in self.codes.T])
        long = [column for column in self.codes.T if len(np.unique(column)) > 0.5 * len(rows)]
        self.is_one_text = len(self.names) == 1 and not numeric[0] and len(long) == 1
        found = (NEEDLE.search(" ".join(map(str, row))) for row in rows.to_numpy())
        self.needles = list({match[0].strip().encode() for match in found if match})
        if len(self.needles) < 0.5 * len(rows):
            self.needles = []

    def encode(self, table: pd.DataFrame) -> np.ndarray:
        """Return the cells as codes of the wanted cells, `[N, D]`, with -1 for any other cell."""
        return np.column_stack([self._encode(table.iloc[:, number]) for number in range(table.shape[1])])

    def _encode(self, column: pd.Series) -> np.ndarray:
        if not pd.api.types.is_numeric_dtype(column):
            return pd.Series(normal(column)).map(self.texts).fillna(-1).to_numpy(np.int64)
        if self.numbers is None:
            return np.full(len(column), -1)
        values = column.to_numpy(float)
        after = np.searchsorted(self.numbers, values).clip(0, len(self.numbers) - 1)
        before = (after - 1).clip(0)
        nearer = np.abs(self.numbers[before] - values) < np.abs(self.numbers[after] - values)
        place = np.where(nearer, before, after)
        close = np.isclose(self.numbers[place], values, rtol=1e-6, atol=0)
        return np.where(close, place + len(self.texts), -1)

    def share_in(self, table: pd.DataFrame) -> float:
        """Return the share of the wanted rows that a table holds, regardless of its column names.

        The share of decoys, rows of randomly combined cells, is subtracted, because those are found by chance.
        """
        if not self.names or table.shape[0] < 2 or not table.shape[1]:
            return 0.0
        table = table.iloc[: MAX_CELLS // table.shape[1] + 1, :MAX_COLUMNS]
        cells = self.encode(table)
        best = 0.0
        for columns in self.mappings(cells, [str(name) for name in table]):
            known = (columns >= 0) & self.varies
            if known.sum() < 0.5 * self.varies.sum() or not known.any() or (len(columns) == 1 and not self.is_one_text):
                continue
            there = cells[:, columns[known]]
            found, chance = (present(rows[:, known], there) for rows in (self.codes, self.decoys))
            best = max(best, found - (0.0 if self.is_one_text else chance))
        return best

    def mappings(self, cells: np.ndarray, names: list[str]) -> Iterator[np.ndarray]:
        """Yield candidate columns of a table for each wanted column, -1 for none: by name, by position, by values."""
        yield np.array([names.index(name) if name in names else -1 for name in self.names])
        shares = self.count(cells)  # [V, D]
        there = shares > 0
        there[-1] = False
        found = there[self.codes].mean(0)  # [C, D]
        width = len(self.names)
        sums = [np.trace(found[:, offset : offset + width]) for offset in range(cells.shape[1] - width + 1)]
        for offset in np.argsort(sums)[::-1][:3]:
            yield np.arange(width) + int(offset)
        alike = np.stack([np.minimum(self.shares[:, [column]], shares).sum(0) for column in range(width)])
        yield np.where(found.max(1) >= AGREEING, np.where(found >= AGREEING, alike, -1).argmax(1), -1)

    def count(self, cells: np.ndarray) -> np.ndarray:
        """Return the share of each code in each column, `[V, D]`; the last row stands for all other cells."""
        num = len(self.texts) + (0 if self.numbers is None else len(self.numbers)) + 1
        return np.column_stack([np.bincount(column % num, minlength=num) / len(column) for column in cells.T])


def present(rows: np.ndarray, there: np.ndarray) -> float:
    """Return the share of `rows` that agree with a row of `there` in nearly all columns."""
    return float(np.mean([(there == row).mean(1).max() >= AGREEING for row in rows]))


def normal(column: pd.Series) -> np.ndarray:
    """Return the cells as text with collapsed white space."""
    return np.array([" ".join(str(cell).split()) for cell in column], dtype=object)


def tables_in(value: Any, depth: int = 0) -> Iterator[pd.DataFrame]:
    """Yield the tables in a Python object: frames, arrays, lists, and those inside containers."""
    if isinstance(value, pd.DataFrame):
        yield value
    elif isinstance(value, pd.Series):
        yield value.to_frame()
    elif isinstance(value, np.ndarray) and value.ndim and value.size:
        yield pd.DataFrame(value if value.dtype.names else value.reshape(len(value), -1)).infer_objects()
    elif isinstance(value, Mapping) and depth < 3:
        with contextlib.suppress(ValueError):
            yield pd.DataFrame(dict(value))
        for inner in value.values():
            yield from tables_in(inner, depth + 1)
    elif isinstance(value, list | tuple) and value and depth < 3:
        if isinstance(value[0], str | bytes | int | float | list | tuple | dict) and len(value) > 2:
            with contextlib.suppress(ValueError):
                yield pd.DataFrame(list(value))
        for inner in value[:10]:
            yield from tables_in(inner, depth + 1)


def loaders() -> Iterator[tuple[str, Any]]:
    """Yield the results of all importable dataset loaders that need no argument."""
    modules = set()
    for place in filter(os.path.isdir, sys.path):
        for folder, subfolders, files in os.walk(place):
            subfolders[:] = [name for name in subfolders if name.isidentifier()]
            base = os.path.relpath(folder, place).replace(os.sep, ".").lstrip(".")
            found = [
                name.removesuffix(".py") for name in (*subfolders, *files) if re.fullmatch(r"datasets(\.py)?", name)
            ]
            modules |= {f"{base}.{name}".lstrip(".") for name in found}
    modules |= {module.name for module in pkgutil.iter_modules() if "data" in module.name}
    for module in sorted(modules):
        functions: list[tuple[str, Any]] = []
        with contextlib.suppress(BaseException), silence():
            functions = inspect.getmembers(importlib.import_module(module), callable)
        for name, function in functions:
            if re.match("(load|fetch)_", name):
                value = None
                with contextlib.suppress(BaseException), silence(), seconds(LOADER_SECONDS):
                    value = function()
                yield f"{module}.{name}()", value


def members(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the files inside an archive or a compressed file, detected by its first bytes; any other file itself."""
    if data[:2] == b"\x1f\x8b":
        yield from members(name.removesuffix(".gz"), gzip.decompress(data))
    elif data[:3] == b"BZh":
        yield from members(name.removesuffix(".bz2"), bz2.decompress(data))
    elif data[:6] == b"\xfd7zXZ\x00":
        yield from members(name.removesuffix(".xz"), lzma.decompress(data))
    elif data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.namelist():
                yield from members(f"{name}/{member}", archive.read(member))
    elif data[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                file = archive.extractfile(member)
                if file is not None:
                    yield from members(f"{name}/{member.name}", file.read())
    else:
        yield name, data


def parse(name: str, data: bytes) -> Iterator[pd.DataFrame]:
    """Yield the tables in a file, detected by its suffix and first bytes. May raise any exception."""
    file = io.BytesIO(data)
    suffix = os.path.splitext(name)[1].lower()
    if data[:6] == b"\x93NUMPY":
        yield from tables_in(np.load(file, allow_pickle=True))
    elif suffix == ".joblib":
        yield from tables_in(importlib.import_module("joblib").load(file))
    elif data[:1] == b"\x80" and data[-1:] == b".":
        yield from tables_in(pickle.loads(data))
    elif suffix == ".mat":
        yield from tables_in(importlib.import_module("scipy.io").loadmat(file))
    elif suffix == ".arff":
        yield from tables_in(importlib.import_module("scipy.io.arff").loadarff(io.StringIO(data.decode()))[0])
    elif suffix in (".parquet", ".feather"):
        yield pd.read_parquet(file) if suffix == ".parquet" else pd.read_feather(file)
    elif suffix == ".dta":
        yield pd.read_stata(file)
    elif suffix in (".json", ".jsonl", ".ndjson"):
        lines = data.splitlines() if suffix != ".json" else [data]
        rows = [json.loads(line) for line in lines]
        yield from tables_in(rows if suffix != ".json" else rows[0])
    elif b"\0" not in data[:8192]:
        head = data[:8192].decode("utf-8", "replace").splitlines()
        for separator in (",", "\t", ";", "|", r"\s+"):
            fields = [
                len(re.split(re.escape(separator) if len(separator) == 1 else separator, line)) for line in head[1:4]
            ]
            if fields and min(fields) > 1:
                yield pd.read_csv(file, sep=separator, low_memory=False, on_bad_lines="skip")
                break


def files(roots: list[str], own: set[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the path and content of every readable file once, except the kernel's and the task's own."""
    seen = set()
    for root in roots:
        for folder, subfolders, names in os.walk(root):
            subfolders[:] = [name for name in subfolders if os.path.join(folder, name) not in ("/proc", "/sys", "/dev")]
            for name in names:
                path = os.path.join(folder, name)
                with contextlib.suppress(OSError):
                    stat = os.stat(path)
                    if not os.path.isfile(path) or (stat.st_dev, stat.st_ino) in seen or stat.st_size > MAX_BYTES:
                        continue
                    seen.add((stat.st_dev, stat.st_ino))
                    if os.path.realpath(path) not in own:
                        with open(path, "rb") as file:
                            yield path, file.read()


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Discard a loader's output."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def seconds(limit: int) -> Iterator[None]:
    """Raise TimeoutError in the block after `limit` seconds."""

    def stop(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(limit)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def no_network() -> None:
    """Make every download fail at once, even if there is a network."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("no network")

    socket.socket.connect = socket.getaddrinfo = refuse  # type: ignore[assignment]
    time.sleep = lambda _: None  # retries need not wait


def main() -> None:
    """Run the search and print its results."""
    with open("search.json") as file:
        request = json.load(file)
    warnings.simplefilter("ignore")
    no_network()
    tests = [pd.read_csv(name, low_memory=False) for name in request["tables"]]
    wanted = [Wanted(test.drop(columns=request["id"], errors="ignore")) for test in tests]
    own = {os.path.realpath(name) for name in (*request["tables"], *request["own"], "search.json", __file__)}
    needles = [needle for each in wanted for needle in each.needles]
    hashes, copies = set(request["hashes"]), {}
    count = {"files": 0, "loaders": 0, "tables": 0}

    def look(source: str, tables: Iterator[pd.DataFrame]) -> None:
        with contextlib.suppress(Exception):
            for table in tables:
                count["tables"] += 1
                share = max((each.share_in(table) for each in wanted), default=0.0)
                if share >= MIN_SHARE:
                    print(f"found {share:.3f} {source}", flush=True)

    for source, value in loaders():
        count["loaders"] += 1
        look(source, tables_in(value))
    for path, content in files(request["roots"], own):
        count["files"] += 1
        with contextlib.suppress(Exception):
            for name, data in members(path, content):
                if hashes and hashlib.sha256(data).hexdigest() in hashes:
                    copies[os.path.dirname(name)] = copies.get(os.path.dirname(name), 0) + 1
                if needles and data[:4] != b"\x7fELF":
                    text = data if b"\0" in data[:8192] else b" ".join(data.split())
                    share = np.mean([needle in text for needle in needles])
                    if share >= MIN_SHARE:
                        print(f"found {share:.3f} {name}", flush=True)
                if not name.endswith(CODE):
                    look(name, parse(name, data))
    for folder, number in copies.items():
        if number >= MIN_SHARE * len(hashes):
            print(f"found {number / len(hashes):.3f} {folder}/", flush=True)
    print(f"searched {count['files']} files, {count['loaders']} loaders, {count['tables']} tables")


if __name__ == "__main__":
    main()
