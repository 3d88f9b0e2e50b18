"""Raw files over a real connection: whole, broken off, wrong, not there; and what is said of Kaggle."""

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rollout.task_tools.preparation import fetch
from rollout.task_tools.preparation.fetch import fetch_raw_files
from tasks.entry import Download, Entry

CONTENT = bytes(range(256)) * 40_000
PART = 1_500_000  # what comes of it before the connection breaks off
SHA = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Site:
    """A server of one file, which breaks off after some bytes as often as it is told to."""

    url: str = ""
    breaks: int = 0
    status: int = 200
    ranges: list[str] = field(default_factory=list)


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            site.ranges.append(asked)
            if site.status != 200:
                self.send_error(site.status)
                return
            first = int(asked.removeprefix("bytes=").rstrip("-") or 0)
            if first >= len(CONTENT):
                self.send_error(416)
                return
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(CONTENT) - first))
            self.end_headers()
            last = len(CONTENT)
            if site.breaks:
                site.breaks -= 1
                last = first + PART
            self.wfile.write(CONTENT[first:last])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}/data.bin"
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch.tenacity, "wait_exponential", lambda **_: fetch.tenacity.wait_none())


def entry(folder: Path, url: str = "", sha256: str = SHA, kaggle: str | None = None) -> Entry:
    return Entry(
        name="toy",
        kind="tabular-regression",
        split="held_in",
        metric="mae",
        direction="minimize",
        m_best=0.0,
        m_best_source="",
        data="",
        folder=folder,
        downloads=(Download(url, "data.bin", sha256),) if url else (),
        kaggle=kaggle,
    )


def get(entry: Entry, out: Path) -> Path:
    return fetch_raw_files(entry, out / ".raw/toy", lambda _: None)


def test_a_download_that_breaks_off_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    site.breaks = 2
    folder = get(entry(tmp_path, site.url), tmp_path)
    assert (folder / "data.bin").read_bytes() == CONTENT
    assert site.ranges == ["", f"bytes={PART}-", f"bytes={2 * PART}-"]


def test_what_an_earlier_run_had_fetched_is_not_fetched_again(site: Site, tmp_path: Path) -> None:
    site.breaks = fetch.ATTEMPTS
    with pytest.raises(ValueError, match="cannot be reached"):
        get(entry(tmp_path, site.url), tmp_path)
    assert not (tmp_path / ".raw/toy").exists()
    site.ranges.clear()
    folder = get(entry(tmp_path, site.url), tmp_path)
    assert (folder / "data.bin").read_bytes() == CONTENT
    assert site.ranges == [f"bytes={PART * fetch.ATTEMPTS}-"]
    site.ranges.clear()
    assert get(entry(tmp_path, site.url), tmp_path) == folder
    assert site.ranges == []


def test_a_file_of_other_content_is_refused_and_removed(site: Site, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"has the SHA-256 {SHA}, expected 0000.*; it was removed, try again"):
        get(entry(tmp_path, site.url, "0" * 64), tmp_path)
    assert [path.name for path in (tmp_path / ".raw").rglob("*") if path.is_file()] == []


def test_a_file_that_is_not_there_says_how_to_give_it_by_hand(site: Site, tmp_path: Path) -> None:
    site.status = 404
    with pytest.raises(
        ValueError, match="data.bin answered 404; or put files that you have in DIR/toy and pass --raw DIR"
    ):
        get(entry(tmp_path, site.url), tmp_path)
    assert len(site.ranges) == 1


def test_a_server_in_trouble_is_asked_again(site: Site, tmp_path: Path) -> None:
    site.status = 503
    with pytest.raises(ValueError, match="answered 503"):
        get(entry(tmp_path, site.url), tmp_path)
    assert len(site.ranges) == fetch.ATTEMPTS


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for Kaggle's client, which cannot be reached from here; what it says is what the real one does."""
    package = tmp_path / "packages/kaggle"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    return package / "__main__.py"


@pytest.mark.parametrize(
    ("says", "remedy"),
    [
        ("Authentication required to call the Kaggle API.\n\nFirst, ...", "set KAGGLE_API_TOKEN to it"),
        ("401 Client Error: Unauthorized for url: https://api.kaggle.com/v1/x", "the token is not valid"),
        ("403 Client Error: Forbidden for url: https://api.kaggle.com/v1/x", "kaggle.com/competitions/cacti/rules"),
        ("404 Client Error: Not Found for url: https://api.kaggle.com/v1/x", "there is no such competition"),
        ("HTTPSConnectionPool(host='api.kaggle.com', port=443): Max retries exceeded", "try again"),
    ],
)
def test_what_kaggle_refuses_says_what_to_do_in_one_line(client: Path, tmp_path: Path, says: str, remedy: str) -> None:
    client.write_text(f"import sys\nprint({says!r})\nassert sys.stdin.read() == ''\nsys.exit(1)\n")
    with pytest.raises(ValueError, match="task toy: Kaggle does not give the competition cacti: ") as found:
        get(entry(tmp_path, kaggle="cacti"), tmp_path)
    assert remedy in str(found.value) and "--raw DIR" in str(found.value)
    assert "\n" not in str(found.value)
    assert not (tmp_path / ".raw/toy").exists()


def test_a_competition_is_fetched_and_unpacked(client: Path, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("train.csv", "id,target\n")
        archive.writestr("images/1.png", b"x")
    (tmp_path / "cacti.zip").write_bytes(packed.getvalue())
    client.write_text(
        "import shutil, sys\n"
        "assert sys.argv[1:5] == ['competitions', 'download', '-c', 'cacti']\n"
        f"shutil.copy({str(tmp_path / 'cacti.zip')!r}, sys.argv[6])\n"
    )
    folder = get(entry(tmp_path, kaggle="cacti"), tmp_path)
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    assert names == ["images", "images/1.png", "train.csv"]


def test_half_an_archive_is_said_and_removed(client: Path, tmp_path: Path) -> None:
    client.write_text("import sys\nopen(f'{sys.argv[6]}/cacti.zip', 'wb').write(b'PK half of it')\n")
    with pytest.raises(ValueError, match=r"cacti.zip cannot be read \(.*\); download it again \(it was removed\)"):
        get(entry(tmp_path, kaggle="cacti"), tmp_path)
    assert list((tmp_path / ".raw").rglob("*.zip")) == []


def test_without_the_client_its_installation_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONNOUSERSITE", "1")
    with pytest.raises(ValueError, match=r"whose client is not installed: pip install 'mlagent-jax\[kaggle\]'"):
        get(entry(tmp_path, kaggle="cacti"), tmp_path)


def test_a_download_that_is_stated_anew_is_fetched_anew(site: Site, tmp_path: Path) -> None:
    folder = get(entry(tmp_path, site.url), tmp_path)
    (folder / "data.bin").write_bytes(b"of an older statement")
    assert (get(entry(tmp_path, site.url), tmp_path) / "data.bin").read_bytes() == CONTENT
