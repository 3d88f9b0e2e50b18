"""Raw files are found however they are packed, and what is wrong with them is said in one line."""

import io
import sys
import zipfile
from pathlib import Path

import pytest

from tasks.raw import open_raw, unpack, write_zip

TABLE = b"id,target\n1,NA\n2,\n"


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def seven_zipped(**members: bytes) -> bytes:
    from py7zr import SevenZipFile

    file = io.BytesIO()
    with SevenZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(content, name)
    return file.getvalue()


def put(folder: Path, **files: bytes) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


PHOTOS = {"train/1.jpg": b"1", "train/2.jpg": b"2"}
OTHERS = {"test/1.jpg": b"3", "test.csv": b"id\n3\n"}
WAYS = {
    "plain": lambda: {"train.csv": TABLE, **PHOTOS},
    "in folders called so": lambda: {
        "train.csv/train.csv": TABLE,
        "train/train/1.jpg": b"1",
        "train/train/2.jpg": b"2",
    },
    "each in its zip": lambda: {"train.csv.zip": zipped(**{"train.csv": TABLE}), "train.zip": zipped(**PHOTOS)},
    "both in one zip": lambda: {"train.zip": zipped(**PHOTOS, **{"train.csv": TABLE})},
    "each in its 7z": lambda: {
        "train.csv.7z": seven_zipped(**{"data/processed/train.csv": TABLE}),
        "train.7z": seven_zipped(**PHOTOS, **OTHERS),
    },
    "all in one zip": lambda: {
        "competition.zip": zipped(**{"__MACOSX/train/1.jpg": b"not it", "train.csv": TABLE}, **PHOTOS, **OTHERS)
    },
    "in zips in one zip": lambda: {
        "competition.zip": zipped(
            **{"train.csv.zip": zipped(**{"train.csv": TABLE}), "data/train.zip": zipped(**PHOTOS)},
            **{"test.zip": b"half of it"},
        ),
        "sample.zip": zipped(**{"sample.csv": b""}),
    },
}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("way", WAYS)
def test_files_and_folders_are_found_and_no_more_is_unpacked(tmp_path, way):
    raw = put(tmp_path / "raw", **WAYS[way]())
    before = contents(raw)
    with open_raw(raw, tmp_path / "public") as files:
        assert files.path("train.csv").read_bytes() == TABLE
        photos = files.folder("train", ["1.jpg", "2.jpg"])
        assert {name: photos.joinpath(name).read_bytes() for name in ("1.jpg", "2.jpg")} == {
            "1.jpg": b"1",
            "2.jpg": b"2",
        }
        assert not {"test", "test.csv", "test.zip", "sample.csv"} & {path.name for path in files.unpacked.rglob("*")}
    assert contents(raw) == before, "the raw files are left as they are"
    assert [path.name for path in tmp_path.iterdir()] == ["raw"], "nothing stays beside them"


def test_an_archive_called_after_a_file_goes_before_others(tmp_path):
    raw = put(tmp_path / "raw", **{"a.zip": zipped(**{"x.csv": b"old"}), "x.zip": zipped(**{"x.csv": b"new"})})
    with open_raw(raw, tmp_path / "public") as files:
        assert files.path("x.csv").read_bytes() == b"new"


def test_the_cells_of_a_table_are_text_unless_they_are_to_be_numbers(tmp_path):
    raw = put(tmp_path / "raw", **{"text.csv": b"a,b\n01,NA\n,1.50\n", "numbers.csv": b"a,b\n1,2\n"})
    with open_raw(raw, tmp_path / "public") as files:
        assert files.table("text.csv", ["b"]).to_numpy().tolist() == [["01", "NA"], ["", "1.50"]]
        assert files.table("numbers.csv", ["b"], int).to_numpy().tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "t.csv is not the expected CSV file: it is empty; download it again"),
        (
            b"a,b\n1,2\n1,2,3\n",
            "t.csv is not the expected CSV file: line 3 has 3 fields, but the lines before it have 2; down",
        ),
        (
            b"a,b\n" + b"\xff,1\n" * 9999,
            "t.csv is not the expected CSV file: it is not UTF-8 text; down",
        ),
        (b"a,c\n1,2\n", "t.csv has no column b, only a, c; expected a, b among others; is it from this competition?"),
        (
            b"a,b\n1,2,3\n1,2,3\n",
            "t.csv is not the expected CSV file: its rows have more fields than its header; download it again",
        ),
        (b"a,b,b\n1,2,3\n", "t.csv is not the expected CSV file: columns 2 and 3 are both named 'b'"),
        (b"a,b\n1,2\n2", "t.csv has 1 incomplete rows, without b; download it again"),
    ],
)
def test_a_wrong_table_is_said_in_one_line(tmp_path, content, reason):
    raw = put(tmp_path / "raw", **{"t.csv": content})
    with open_raw(raw, tmp_path / "public") as files, pytest.raises(ValueError, match=reason) as caught:
        files.table("t.csv", ["a", "b"])
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_named(tmp_path):
    raw = put(tmp_path / "raw", **{"train/1.jpg": b"", "test.zip": zipped(**OTHERS)})
    with open_raw(raw, tmp_path / "public") as files:
        with pytest.raises(
            ValueError, match=f"there is no train.csv in {raw}, nor in an archive there; put the competition"
        ):
            files.path("train.csv")
        with pytest.raises(ValueError, match=f"7 of 8 files are missing from {raw}/train: 2.jpg, .*, 6.jpg, ... .7 in"):
            files.folder("train", [f"{number}.jpg" for number in range(1, 9)])


@pytest.mark.parametrize("name", ["a.zip", "a.7z"])
def test_half_an_archive_is_said_so_but_a_full_disk_is_not_its_fault(tmp_path, name):
    whole = (zipped if name == "a.zip" else seven_zipped)(**OTHERS)
    half = put(tmp_path, **{f"half/{name}": whole[: len(whole) // 2]}) / "half" / name
    with pytest.raises(ValueError, match=f"{name} cannot be read .Bad.*: .*; download it again"):
        unpack(half, tmp_path / "out")
    put(tmp_path, **{name: whole, "no folder": b""})
    with pytest.raises(OSError):
        unpack(tmp_path / name, tmp_path / "no folder")
    unpack(tmp_path / name, tmp_path / "out")
    assert contents(tmp_path / "out") == OTHERS


def test_a_7z_archive_without_py7zr_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "py7zr", None)
    raw = put(tmp_path / "raw", **{"train.json.7z": b""})
    with (
        open_raw(raw, tmp_path / "public") as files,
        pytest.raises(ValueError, match="train.json.7z .*pip install py7zr"),
    ):
        files.path("train.json")


def test_the_same_files_make_the_same_archive(tmp_path):
    put(tmp_path, a=b"1", b=b"2")
    for name in ("x.zip", "y.zip"):
        write_zip(tmp_path / name, {"1.jpg": tmp_path / "a", "2.jpg": tmp_path / "b"})
        (tmp_path / "a").touch()
    assert (tmp_path / "x.zip").read_bytes() == (tmp_path / "y.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {"1.jpg": b"1", "2.jpg": b"2"}
        assert archive.infolist()[0].date_time[0] == 1980
