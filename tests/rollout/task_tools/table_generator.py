"""Write random tables of which every cell is known, some of them with a fault that a reader must refuse."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from rollout.task_tools.from_table.raw_table import TableFormat

WORDS = ["north", "South", "café", "naïve", "5 rooms", "12B", "NA", "None", "null", "True", "x-1", "1,5,9", "it's"]
ODD_WORDS = [
    'say "hi"',
    "two\nlines",
    "a\r\nb",
    "a\rb",
    "a;b",
    "a,b",
    "a\tb",
    "a|b",
    " padded ",
    '"',
    "#1",
    "=1+1",
    "'",
]
FAR_WORDS = ["Zürich", "日本", "Ωmega", "🙂", "e\u0301"]
NAMES = [
    "area",
    "rooms",
    "Place",
    "x",
    "x.1",
    "x.2",
    "id",
    "target",
    "id_column",
    "größe",
    "a b",
    "what, if",
    'the "q"',
]
NAMES += ["two\nlines", "1st", "2020", "a;b", "a|b", "NA", "None", "column 7", "Unnamed: 0", "index", "=name", "#"]
MARKERS = ["NA", "n/a", "?", "-", "null", "NaN", ""]


@dataclass
class Table:
    """A table and what a reader must find in it.

    Attributes:
        names: The names of the features as they are written.
        columns: The cells of each feature as they are written, and as they must be read.
        target: The cells of the target, likewise; rows without one must be left out.
        form: What is stated about the file.
        data: The content of the file.
        fault: The fault that must be refused, None if there is none.
    """

    names: list[str] = field(default_factory=list)
    columns: list[tuple[list[str], list[str]]] = field(default_factory=list)
    target: tuple[list[str], list[str]] = ([], [])
    form: TableFormat = field(default_factory=TableFormat)
    data: bytes = b""
    fault: str | None = None

    def expected(self) -> list[list[str]]:
        """Return the cells of the columns that a reader must find, the target last, without duplicate rows."""
        rows = zip(*(read for _, read in (*self.columns, self.target)), strict=True)
        return [list(cells) for cells in zip(*dict.fromkeys(row for row in rows if row[-1]), strict=True)]


def table(seed: int, with_faults: bool = True) -> Table:
    """Return a random table."""
    rng = random.Random(seed)
    separator, decimal = rng.choice(",,;;\t|"), rng.choice("..,")
    encoding = rng.choice(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "cp1252", "latin-1"])
    num_rows = rng.randint(6, 20)
    made = Table(names=rng.sample(NAMES, rng.randint(1, 5)))
    for _ in made.names:
        kind = rng.choice([whole, real, huge, code, date, word, odd_word, truth])
        made.columns.append(kind(rng, num_rows, decimal, encoding))
    numbers, read = rng.choice([whole, real])(rng, num_rows, decimal, encoding, gaps=rng.random() < 0.3)
    made.target = (numbers, read)
    named = encoding in ("cp1252", "latin-1")
    made.form = TableFormat(
        separator=separator if rng.random() < 0.3 else None,
        decimal=decimal if rng.random() < 0.5 else None,
        encoding=encoding if named else None,
    )
    if with_faults and rng.random() < 0.4:
        made.fault = rng.choice(list(FAULTS))
    lines = [[*made.names, "price"], *zip(*(cells for cells, _ in (*made.columns, made.target)), strict=True)]
    text = write(rng, [list(line) for line in lines], separator, made.fault)
    made.data = text.encode(encoding)
    if made.fault == "byte that is no text":
        made.data, made.form = text.encode("utf-8") + b"\xff\xfe1\n", replace(made.form, encoding="utf-8")
    return made


def write(rng: random.Random, rows: list[list[str]], separator: str, fault: str | None) -> str:
    """Return the text of a table with a fault, with random quotes, line breaks and blank lines."""
    if fault in FAULTS:
        FAULTS[fault](rng, rows)
    end, share = rng.choice(["\n", "\n", "\r\n", "\r"]), rng.choice([0, 0.3, 1])

    def quoted(cell: str) -> str:
        needs = any(character in cell for character in (separator, '"', "\n", "\r")) or cell.startswith(" ")
        return f'"{cell.replace(chr(34), 2 * chr(34))}"' if needs or rng.random() < share else cell

    lines = [separator.join(map(quoted, row)) for row in rows]
    if fault == "open quote":
        row = rng.randrange(1, len(lines))
        lines[row] = '"' + lines[row].replace('"', "")
        lines[row + 1 :] = [line.replace('"', "") for line in lines[row + 1 :]]
    if rng.random() < 0.1:
        lines.insert(rng.randrange(1, len(lines)), "")
    return end.join(lines) + rng.choice(["", end, end + end])


def surplus(rng: random.Random, rows: list[list[str]]) -> None:
    """Add a field to a row."""
    row = rng.choice(rows[1:])
    row.insert(rng.randint(0, len(row)), rng.choice(["7", "x", ""]))


def lacking(rng: random.Random, rows: list[list[str]]) -> None:
    """Remove a field from a row."""
    row = next(row for row in rng.sample(rows[1:], len(rows) - 1) if any(row[:-1]))
    del row[rng.randrange(1, len(row))]


def renamed(rng: random.Random, rows: list[list[str]], names: list[str]) -> None:
    """Give a feature another name."""
    rows[0][rng.randrange(len(rows[0]) - 1)] = rng.choice(names)


def unnamed(rng: random.Random, rows: list[list[str]]) -> None:
    """Give a column of words no name."""
    for row in rows:
        row.insert(0, "word")
    rows[0][0] = rng.choice(["", "  "])


def copied(rng: random.Random, rows: list[list[str]]) -> None:
    """Add a column that equals the target."""
    place = rng.randrange(len(rows[0]))
    for row in rows:
        row.insert(place, row[-1])
    rows[0][place] = "copy"


def spoiled(rng: random.Random, rows: list[list[str]]) -> None:
    """Put something that is no number into the target."""
    rng.choice(rows[1:])[-1] = rng.choice(["inf", "-Infinity", "1e999", "$198", "16%", "1e5x", "1,234,567", "x"])


FAULTS: dict[str, Callable[[random.Random, list[list[str]]], None]] = {
    "surplus field": surplus,
    "missing field": lacking,
    "name twice": lambda rng, rows: renamed(rng, rows, ["price", "price ", " price", "Price", "PRICE", "price.1"]),
    "no name": unnamed,
    "copy of the target": copied,
    "target that is no number": spoiled,
    "open quote": lambda rng, rows: None,
    "byte that is no text": lambda rng, rows: None,
}


def marked(number: str, decimal: str) -> tuple[str, str]:
    """Return a number as it is written and as it must be read."""
    return number.replace(".", decimal), number


def column(
    rng: random.Random, num_rows: int, make: Callable[[], tuple[str, str]], gaps: bool
) -> tuple[list[str], list[str]]:
    """Return a column of numbers in which markers stand for missing values."""
    cells = [make() for _ in range(num_rows)]
    if gaps:
        for row in rng.sample(range(num_rows), rng.randint(1, num_rows // 3)):
            cells[row] = rng.choice(MARKERS), ""
    if rng.random() < 0.1:
        cells = [(f" {written}", read) if written else ("", "") for written, read in cells]
    return [written for written, _ in cells], [read for _, read in cells]


def whole(rng: random.Random, num_rows: int, decimal: str, _: str, gaps: bool | None = None):
    """Whole numbers up to 2^53, and gaps."""
    largest = rng.choice([9, 999, 10**6, 2**53])
    sign = rng.choice([0, -1])
    make = lambda: marked(str(rng.randint(sign * largest, largest)), decimal)  # noqa: E731
    return column(rng, num_rows, make, rng.random() < 0.3 if gaps is None else gaps)


def real(rng: random.Random, num_rows: int, decimal: str, _: str, gaps: bool | None = None):
    """Numbers with a decimal mark, in several spellings."""
    spell = rng.choice(["{:.1f}", "{:.2f}", "{:.3f}", "{!r}", "{:.4e}", "{:+.2f}"])
    make = lambda: marked(spell.format(rng.uniform(-1000, 10**5)), decimal)  # noqa: E731
    return column(rng, num_rows, make, rng.random() < 0.3 if gaps is None else gaps)


def same(cells: list[str]) -> tuple[list[str], list[str]]:
    """Return cells that must be read as they are written."""
    return cells, list(cells)


def huge(rng: random.Random, num_rows: int, *_: str):
    """Account numbers."""
    return same([str(rng.randint(10**17, 10 ** rng.choice([18, 19, 25]))) for _ in range(num_rows)])


def code(rng: random.Random, num_rows: int, *_: str):
    """Postal codes with leading zeros."""
    return same(["00123", *(f"{rng.randint(0, 99999):05d}" for _ in range(num_rows - 1))])


def date(rng: random.Random, num_rows: int, *_: str):
    """Dates and times."""
    form = rng.choice(["{:04d}-{:02d}-{:02d}", "{2:02d}.{1:02d}.{0:04d}", "{1}/{2}/{0}", "{0}-{1:02d}-{2:02d} 12:30"])
    return same([form.format(rng.randint(1990, 2030), rng.randint(1, 12), rng.randint(1, 28)) for _ in range(num_rows)])


def word(rng: random.Random, num_rows: int, *_: str):
    """Words, some of which could be missing values or numbers elsewhere."""
    return same(["north", *(rng.choice(WORDS) for _ in range(num_rows - 1))])


def odd_word(rng: random.Random, num_rows: int, decimal: str, encoding: str):
    """Words with separators, quotes and line breaks in them, and letters of other alphabets."""
    known = ODD_WORDS + (FAR_WORDS if encoding.startswith("utf") else [])
    return same(["north", *(rng.choice(known) for _ in range(num_rows - 1))])


def truth(rng: random.Random, num_rows: int, *_: str):
    """Truth values in any case."""
    return same([rng.choice(rng.choice([["True", "False"], ["TRUE", "false"]])) for _ in range(num_rows)])
