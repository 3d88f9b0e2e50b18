"""A user's table is read right, or one line names the cause, the place and the option."""

import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from rollout.task_tools.from_table.raw_table import TableFormat
from rollout.task_tools.from_table.user_table import UserTable, read_user_table

NUM_ROWS = 60
RNG = random.Random(0)
FLATS = [(RNG.randint(30, 150), RNG.randint(1, 6), RNG.randint(50_000, 300_000)) for _ in range(NUM_ROWS)]
PRICES = [str(price) for *_, price in FLATS]


def lines(header: str, row: Callable[[int, int, int, int], str]) -> str:
    """Return a table with a row for each flat, of its number, area, rooms and price."""
    return "\n".join([header, *(row(number, *flat) for number, flat in enumerate(FLATS))]) + "\n"


def read(folder: Path, content: str | bytes, target: str = "price", metric: str = "rmse", **stated) -> UserTable:
    file = folder / "flats.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_user_table(file, target, metric, None, TableFormat(**stated))


def refusal(folder: Path, content: str | bytes, **arguments) -> str:
    """Return the message with which a table is refused."""
    with pytest.raises(ValueError) as caught:
        read(folder, content, **arguments)
    message = str(caught.value)
    assert "\n" not in message and str(folder / "flats.csv") in message
    return message.replace(str(folder), "")


def plain(area: str = "{1}", rooms: str = "{2}", price: str = "{3}", header: str = "area,rooms,price") -> str:
    return lines(header, lambda *values: ",".join((area, rooms, price)).format(*values))


AMBIGUOUS = {
    "decimal commas in a table with commas": (
        "area,rooms,price\n" + "47,5,158,533\n" * 60,
        r"row 1 (line 2) has 4 fields, but the header has 3, separated by comma; quote cells that contain a comma, or "
        "state the separator with --sep and, if numbers have a decimal comma, --decimal ,",
    ),
    "a field too few": (plain() + "47,5\n", "row 61 (line 62) has 2 fields, but the header has 3"),
    "a field too many after a cell with line breaks": (
        plain(area='"{1}\n"') + "47,5,6,7\n",
        "row 61 (line 122) has 4 fields, but the header has 3",
    ),
    "a line after the table": (plain() + "Source: land registry\n", "row 61 (line 62) has 1 fields"),
    "two separators": (lines("a;b,price", lambda *_: "1;2,3"), "may be separated by comma or semicolon"),
    "no separator": (lines("area price", lambda *_: "1 2"), "the header 'area price' is a single field"),
    "an open quote": (plain().replace("\n", '\n"', 1), "in row 1 (line 2), a quote is opened and never closed"),
    "escaped quotes": (lines("note,price", lambda *_: r'"a \"b\" c",1'), "(line 2), text follows a closing quote"),
    "a quote after white space": (lines("note,price", lambda *_: '1, "2"'), "white space precedes the quote"),
    "two open quotes": (
        lines("place,rooms,price", lambda i, *_: {3: '"x,1,{}', 12: 'x",1,{}'}.get(i, "x,1,{}").format(i)),
        "a quoted cell of row 4 (line 5) has 10 lines that are rows of the table; close the quote on its line",
    ),
    "the same name twice": (plain(header="area,price,price"), "columns 2 and 3 are both named 'price'"),
    "the same name with a blank": (plain(header="price ,area, price"), "columns 1 and 3 are both named 'price'"),
    "the target in capitals": (plain(header="area,Price,price"), "column 2, 'Price', has the name of the target"),
    "the target renamed by pandas": (plain(header="price.1,rooms,price"), "column 1, 'price.1', has the name of the t"),
    "a copy of the target": (
        plain(rooms="{3}.0"),
        "column 'rooms' equals the target, 'price', in every row, so it holds the answers; remove it",
    ),
    "no name": (plain(header="area,,price"), "column 2 of 3 has no name; name it in the header"),
    "no header": (plain(header="47,5,158"), "the first line, '47', '5', '158', looks like data"),
    "an infinite target": (
        plain() + "47,5,inf\n",
        "rmse needs numbers, but column 'price' holds 'inf' in row 61 (line 62); write a finite number",
    ),
    "a target that overflows": (plain() + "47,5,1e999\n", "holds '1e999' in row 61 (line 62); write a finite number"),
    "a target with a currency": (
        plain(price='"$198,916"'),
        "column 'price' holds '$198,916' in row 1 (line 2); write plain numbers such as 1234.5",
    ),
    "percentages": (plain(price="16%"), "column 'price' holds '16%' in row 1 (line 2); write plain numbers"),
    "a slip in the target": (plain() + "47,5,1e5x\n", "column 'price' holds '1e5x' in row 61 (line 62)"),
    "digits in groups": (
        plain(price='"198,916"'),
        "column 'price' holds '198,916' in row 1 (line 2), whose comma may be a decimal mark or a thousands separator",
    ),
    "points in groups": (
        lines("area;price", lambda *_: "1;198.916"),
        "whose point may be a decimal mark or a thousands separator; state --decimal . if",
    ),
    "two decimal marks": (
        lines("area;rooms;price", lambda *_: "47,5;1.5;3"),
        "column 'area' holds '47,5' in row 1 (line 2), but column 'rooms' holds '1.5' in row 1 (line 2)",
    ),
    "a currency of India in groups of two": (
        plain(area='"1,23,456"'),
        "column 'area' holds '1,23,456' in row 1 (line 2)",
    ),
    "a formula of a spreadsheet": (plain(area='"=""{1}"""'), "which is not a plain number; write plain numbers"),
    "quotes within quotes": (plain(area='"""{1}"""'), "which is not a plain number; write plain numbers"),
    "an apostrophe of a spreadsheet": (plain(area="'{1}"), "which is not a plain number; write plain numbers"),
    "a rough number": (plain() + "47,5,~9\n", "holds '~9' in row 61 (line 62); write plain numbers such as 1234.5"),
    "a footnote": (plain() + "47*,5,9\n", "column 'area' holds '47*' in row 61 (line 62), which is not a plain number"),
    "a row of units": (
        plain().replace("\n", "\nm2,n,EUR\n", 1),
        "column 'price' holds 'EUR' in row 1 (line 2); write a number there, or leave the row out",
    ),
    "the header again": (plain() + plain(), "row 61 (line 62) is the header again; remove it"),
    "a title with a comma": (
        "flats, 2020\n" + plain(),
        "; every row has as many, so name every column in the header, and remove lines before it",
    ),
    "names of rows without a name": (
        lines("area,rooms,price", lambda *values: "r{},{},{},{}".format(*values)),
        "every row has as many, so name every column in the header",
    ),
    "a copy of the target with gaps": (
        lines("area,sold,price", lambda n, a, _, p: f"{a},{p if n % 3 == 0 else ''},{p}"),
        "column 'sold' equals the target, 'price', in all 20 rows in which it is filled, so it holds the answers",
    ),
    "an infinite feature": (plain() + "-inf,5,1\n", "column 'area' holds '-inf' in row 61 (line 62), which is not fin"),
    "a feature with a currency": (plain(area="${1}"), "which is not a plain number; write plain numbers such as"),
    "another encoding": (
        plain(header="area,Größe,price").encode("latin-1"),
        "line 1 is not UTF-8 text (byte 0xf6); pass its encoding with --encoding",
    ),
    "UTF-16 without a mark": (plain().encode("utf-16-le"), "line 1 has a NUL character, so it is not UTF-8 text"),
    "UTF-16 without a mark, high bytes first": (plain().encode("utf-16-be"), "UTF-16, pass --encoding utf-16-be"),
    "white space": (b" \n\n", "is empty; expected a table with a header"),
}


@pytest.mark.parametrize("what", AMBIGUOUS)
def test_what_can_be_read_in_two_ways_is_refused_with_its_place(tmp_path: Path, what: str) -> None:
    content, reason = AMBIGUOUS[what]
    assert reason in refusal(tmp_path, content)


EUROPEAN = lines("area;rooms;price", lambda _, area, rooms, price: f"{area},5;{rooms};{price},25")
FORMS = {
    "as found": (EUROPEAN, {}),
    "as stated": (EUROPEAN, {"separator": ";", "decimal": ","}),
    "tabs": (EUROPEAN.replace(";", "\t"), {}),
    "quotes around commas": (lines("area,rooms,price", lambda _, a, r, p: f'"{a},5",{r},"{p},25"'), {}),
    "UTF-8 with a mark": (EUROPEAN.encode("utf-8-sig"), {}),
    "UTF-16": (EUROPEAN.encode("utf-16"), {}),
    "a stated encoding": (EUROPEAN.encode("cp1252"), {"encoding": "cp1252"}),
    "Windows line ends": (EUROPEAN.replace("\n", "\r\n"), {}),
    "old Macintosh line ends": (EUROPEAN.replace("\n", "\r"), {}),
    "blank lines": (EUROPEAN.replace("\n", "\n\n"), {}),
    "Excel's first line": ("sep=;\n" + EUROPEAN, {}),
    "separators at the ends of lines": (EUROPEAN.replace("\n", ";\n"), {}),
    "several separators at the ends of lines": (EUROPEAN.replace("\n", ";;;\n"), {}),
    "separators at the ends of the rows alone": (EUROPEAN.replace("\n", ";\n").replace(";\n", "\n", 1), {}),
    "an index without a name": (lines(";area;rooms;price", lambda n, a, r, p: f"{n};{a},5;{r};{p},25"), {}),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_usual_form_gives_the_same_cells(tmp_path: Path, form: str) -> None:
    content, stated = FORMS[form]
    table = read(tmp_path, content, **stated)
    assert table.numeric == {"area", "rooms", "target"}
    expected = [[f"{area}.5", str(rooms), f"{price}.25"] for area, rooms, price in FLATS]
    assert table.cells.to_numpy().tolist() == expected


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        ({"separator": "ab"}, "--sep is 'ab'; expected one character such as ',' or ';', or the word tab"),
        ({"decimal": "x"}, "--decimal is 'x'; expected a point or a comma"),
        ({"encoding": "klingon"}, "--encoding is 'klingon', which is no text encoding; expected utf-8"),
        ({"encoding": "hex"}, "--encoding is 'hex', which is no text encoding"),
        ({"words": frozenset(["romms"])}, "has no column 'romms' (nearest: rooms); it has 'area', 'rooms', 'price'"),
    ],
)
def test_an_option_without_sense_is_refused(tmp_path: Path, stated: dict, reason: str) -> None:
    (tmp_path / "flats.csv").write_text(plain())
    with pytest.raises(ValueError) as caught:
        read_user_table(tmp_path / "flats.csv", "price", "rmse", None, TableFormat(**stated))
    assert reason in str(caught.value)


def test_an_encoding_that_contradicts_the_byte_order_mark_is_refused(tmp_path: Path) -> None:
    said = refusal(tmp_path, plain().encode("utf-8-sig"), encoding="latin-1")
    assert "begins with the byte order mark of UTF-8, but --encoding is latin-1; leave it out" in said


@pytest.mark.parametrize(
    ("place", "encoding", "stated", "reason"),
    [
        ("Köln", "utf-8", "cp1252", "is UTF-8 text, but --encoding is cp1252; leave it out"),
        (
            "a €",
            "cp1252",
            "latin-1",
            "byte 0x80 of line 2 is no character of latin-1; pass another encoding, such as cp",
        ),
    ],
)
def test_a_stated_encoding_that_garbles_letters_is_refused(
    tmp_path: Path, place: str, encoding: str, stated: str, reason: str
) -> None:
    content = plain(rooms=place).encode(encoding)
    assert reason in refusal(tmp_path, content, encoding=stated)
    assert read(tmp_path, content, encoding=encoding).cells["rooms"].tolist() == [place] * NUM_ROWS


def test_names_lose_what_cannot_be_seen(tmp_path: Path) -> None:
    table = read(tmp_path, plain(header="{area},\u200brooms\x0c,\u2003price\x0c"))
    assert list(table.cells) == ["{area}", "rooms", "target"]


def test_rows_without_a_target_are_left_out_whatever_marks_them(tmp_path: Path) -> None:
    table = read(tmp_path, plain() + "1,2,NA\n1,2,NA\n1,2,?\n1,2,\n,,\n")
    assert table.cells["target"].tolist() == PRICES
    assert table.notes == ("5 rows without a 'price' are left out",)


def test_markers_among_numbers_are_gaps_and_are_counted(tmp_path: Path) -> None:
    table = read(tmp_path, lines("area,rooms,price", lambda n, a, r, p: f"{'?' if n % 9 == 0 else a},{r},{p}"))
    assert "area" in table.numeric
    assert table.cells["area"].tolist() == ["" if n % 9 == 0 else str(area) for n, (area, *_) in enumerate(FLATS)]
    assert table.notes == ("column 'area' is numeric; 7 cells are read as missing values: '?' (7)",)


def test_the_same_markers_among_words_are_words(tmp_path: Path) -> None:
    words = ["NA", "None", "?", "null", "north"]
    table = read(tmp_path, lines("place,rooms,price", lambda n, _, r, p: f"{words[n % 5]},{r},{p}"))
    assert table.cells["place"].tolist() == [words[n % 5] for n in range(NUM_ROWS)]
    assert table.numeric == {"rooms", "target"} and table.notes == ()


def test_stated_markers_are_gaps_everywhere(tmp_path: Path) -> None:
    content = plain() + "-999,2,3\n1,unknown,4\n5,6,-999\n"
    table = read(tmp_path, content, missing=frozenset(["-999", "unknown"]))
    assert table.numeric == {"area", "rooms", "target"}
    assert table.cells.to_numpy().tolist()[NUM_ROWS:] == [["", "2", "3"], ["1", "", "4"]]


@pytest.mark.parametrize(
    ("cells", "is_numeric"),
    [
        (["00123", "45678"], False),
        (["9007199254740993", "1"], False),
        (["9007199254740992", "1"], True),
        (["123456789012345678901234567890", "1"], False),
        (["1.5", "1e20"], True),
        (["+1", "-2.50", ".5", "6."], True),
        (["2020-01-31", "2020-02-01"], False),
        (["01.02.2020", "12:30"], False),
        (["10.0.0.1", "1.2.3"], False),
        (["TRUE", "false"], False),
        (["12", "12B"], False),
        (["0x1f", "1"], False),
        (["٣", "x"], False),
    ],
)
def test_cells_keep_their_digits_and_numbers_are_numbers(tmp_path: Path, cells: list[str], is_numeric: bool) -> None:
    size = len(cells)
    table = read(tmp_path, lines("cell,rooms,price", lambda n, _, r, p: f"{cells[n % size]},{r},{p}"))
    assert table.cells["cell"].tolist() == [cells[n % size] for n in range(NUM_ROWS)]
    assert ("cell" in table.numeric) is is_numeric


def test_a_column_that_is_almost_numbers_is_said(tmp_path: Path) -> None:
    (note,) = read(tmp_path, plain() + "unknown,2,3\n").notes
    assert note == (
        "column 'area' is read as words, because 1 of 61 cells are not numbers, the first 'unknown' in row 61 "
        "(line 62); pass --na 'unknown' if it means missing"
    )
    (note,) = read(tmp_path, plain(area="{1} m2")).notes
    assert "column 'area' is read as words; for numbers, remove the unit from cells such as" in note


def test_a_stated_marker_that_no_cell_is_is_said(tmp_path: Path) -> None:
    table = read(tmp_path, plain() + "-999.0,1,2\n", missing=frozenset(["-999"]))
    assert table.notes == ("no cell is '-999', which --na states",)


def test_measurements_in_two_units_are_said(tmp_path: Path) -> None:
    content = lines("weight,rooms,price", lambda n, a, r, p: f"{a} {['kg', 'lb'][n % 2]},{r},{p}")
    (note,) = read(tmp_path, content).notes
    assert note.startswith(
        "column 'weight' is read as words; for numbers, convert to one unit and remove the unit from"
    )


@pytest.mark.parametrize(
    "form", ["{day:02d}.01.2024", "1/{day}/24", "2024/01/{day:02d} 12:30", "{day}-Jan-2024", "January {day}, 2024"]
)
def test_dates_in_another_form_than_iso_are_said(tmp_path: Path, form: str) -> None:
    def row(number: int, _: object, rooms: object, price: object) -> str:
        return f'"{form.format(day=number % 28 + 1)}",{rooms},{price}'

    (note,) = read(tmp_path, lines("day,rooms,price", row)).notes
    assert note.startswith("column 'day' is read as words, although ") and "write dates as 2024-01-31" in note


@pytest.mark.parametrize("cell", ["10.0.{}.1", "{}-1", "section {} of 2024"])
def test_words_that_are_no_dates_are_not_taken_for_dates(tmp_path: Path, cell: str) -> None:
    table = read(tmp_path, lines("code,rooms,price", lambda n, _, r, p: f"{cell.format(n % 9)},{r},{p}"))
    assert not any("looks like a date" in note for note in table.notes)


@pytest.mark.parametrize("cell", ["https://example.org/flats/2026/{:020d}.html", "key {:064x}"])
def test_hashes_and_addresses_in_the_web_are_no_texts(tmp_path: Path, cell: str) -> None:
    table = read(tmp_path, lines("link,rooms,price", lambda n, _, r, p: f"{cell.format(n * n)},{r},{p}"))
    assert (table.kind, table.text, table.notes) == ("tabular-regression", "", ())


@pytest.mark.parametrize("cell", ["a bright flat with a garden in street number {}", "漢字" * 25 + "{}"])
def test_a_column_of_texts_is_said_and_can_be_words(tmp_path: Path, cell: str) -> None:
    content = lines("note,rooms,price", lambda n, _, r, p: f"{cell.format(n)},{r},{p}")
    table = read(tmp_path, content)
    assert (table.kind, table.text) == ("text-regression", "note")
    assert table.notes == (
        "column 'note' holds texts, so train.py reads only it, without 'rooms'; if it holds no texts, pass "
        "--words note",
    )
    assert read(tmp_path, content, words=frozenset(["note"])).text == ""


def test_a_column_that_counts_the_rows_is_said(tmp_path: Path) -> None:
    content = lines("Row No,area,rooms,price", lambda n, *rest: ",".join(map(str, (n + 1, *rest))))
    (note,) = read(tmp_path, content).notes
    assert note == (
        "column 'Row No' counts the rows, so it tells the order of the table; to leave it out, pass --id 'Row No'"
    )


def test_a_rising_function_of_the_target_is_said(tmp_path: Path) -> None:
    content = lines("log,area,price", lambda n, area, _, price: f"{math.log(price)!r},{area},{price}")
    (note,) = read(tmp_path, content).notes
    assert note.startswith("column 'log' alone determines 'price' in every row")


def test_a_group_has_one_spelling_and_is_on_one_side(tmp_path: Path) -> None:
    ways = ("p{}", "P{} ", "P{}\xa0", "{}", "{}.0", "00{}")
    file = tmp_path / "visits.csv"
    content = lines("patient,rooms,price", lambda n, _, r, p: f"{ways[n % 6].format(n // 6)},{r},{p}")
    file.write_text(content + ",1,1\n,1,2\n")
    table = read_user_table(file, "price", "rmse", None, group="patient")
    expected = [name for n in range(10) for name in (f"p{n}",) * 3 + (f"{n}",) * 3]
    assert table.cells["patient"].tolist() == [*expected, "", ""]
    assert table.notes[1:] == (
        "40 cells of the group 'patient' are another spelling of a group and are written like its first, such as 'P0 ' "
        "as 'p0'",
        "2 rows have no 'patient'; each of them is a group of its own",
    )
    file.write_text(lines("patient,rooms,price", lambda n, _, r, p: f"p{n},{r},{p}"))
    with pytest.raises(ValueError, match="no two rows have the same 'patient', so it is no group; leave --group out"):
        read_user_table(file, "price", "rmse", None, group="patient")


def test_stated_words_are_words(tmp_path: Path) -> None:
    table = read(tmp_path, plain(area="${1}"), words=frozenset(["area", "rooms"]))
    assert table.numeric == {"target"} and table.notes == ()


def test_features_that_give_the_target_away_are_said(tmp_path: Path) -> None:
    (note,) = read(tmp_path, plain(rooms="{3}00")).notes
    assert note.startswith("column 'rooms' alone determines 'price' in every row; remove it if it is not known when")
    content = lines("area,code,kind", lambda n, a, *_: f"{n * n},{7 + n % 2},{['yes', 'no'][n % 2]}")
    (note,) = read(tmp_path, content, target="kind", metric="accuracy").notes
    assert note.startswith("column 'code' alone determines 'kind' in every row")


def test_duplicate_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    table = read(tmp_path, plain() + "1,2,3\n1,2,3\n1,2,3\n")
    assert len(table.cells) == NUM_ROWS + 1 and table.notes == ("2 duplicates of other rows are left out",)


def test_the_names_id_and_target_never_meet_another_column(tmp_path: Path) -> None:
    content = lines("id,id_column,target,price", lambda *values: ",".join(map(str, values)))
    table = read(tmp_path, content)
    assert list(table.cells) == ["id_column_column", "id_column", "target_column", "target"]
    assert table.cells["id_column"].tolist() == [str(area) for area, *_ in FLATS]
