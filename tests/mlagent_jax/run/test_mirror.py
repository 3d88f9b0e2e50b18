"""The copy of a run directory in a bucket is always complete, and written by one machine at a time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from mlagent_jax.configuration.schema import ConfigError
from mlagent_jax.run.mirror import ATTEMPTS, MANIFEST, Mirror, require_complete
from rollout.errors import InfrastructureError


@pytest.fixture
def bucket(tmp_path: Path) -> str:
    return (tmp_path / "bucket" / "run").as_uri()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def contents(folder: Path) -> dict[str, str]:
    """Returns the text of every file but those that begin with a dot, by path."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(folder)): path.read_text() for path in paths}


def pulled(url: str, folder: Path) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    Mirror(url, folder).pull()
    return contents(folder)


def recorded(mirror: Mirror, name: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Returns a list of what the store's method `name` is called with, from here on."""
    calls: list[Any] = []
    method = getattr(mirror._store, name)

    def record(first: Any, *rest: Any) -> Any:
        calls.append(first)
        return method(first, *rest)

    monkeypatch.setattr(mirror._store, name, record)
    return calls


def failing(times: int, method: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the method, which fails the first times."""
    left = [times]

    def attempt(*arguments: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise ConnectionError("the bucket is away")
        return method(*arguments)

    return attempt


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_another_folder_becomes_what_was_copied(kind: str, tmp_path: Path, bucket: str) -> None:
    url = bucket if kind == "file" else f"memory://{tmp_path.name}/run"
    here, there = tmp_path / "here", tmp_path / "there"
    files = {"metrics.jsonl": "1\n", "sft/checkpoints/3/state": "abc", "empty": ""}
    write(here, {**files, ".lock": "77", ".blob.1.ab": "h", "tmp/x": "scratch", "half.json.part": "{", "log.1.txt": ""})
    mirror = Mirror(url, here)
    mirror.push()
    assert pulled(url, there) == files
    for name in files:
        assert (there / name).stat().st_mtime_ns == (here / name).stat().st_mtime_ns
    write(there, {"metrics.jsonl": "1\n2\n"})
    (there / "sft/checkpoints/3/state").unlink()
    Mirror(url, there).push()  # and on from there
    assert pulled(url, here) == {
        "metrics.jsonl": "1\n2\n",
        "empty": "",
        "tmp/x": "scratch",
        "half.json.part": "{",
        "log.1.txt": "",
    }


def test_only_what_changed_is_sent(tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "run", {"a": "1", "b": "2"})
    mirror = Mirror(bucket, tmp_path / "run")
    sent = recorded(mirror, "put", monkeypatch)
    mirror.push()
    mirror.push()
    write(tmp_path / "run", {"b": "22", "c": "3"})
    mirror.push()
    Mirror(bucket, tmp_path / "run").push()  # by a later process too
    names = [[Path(path).name for path in paths] for paths in sent]
    assert [sorted(each) for each in names] == [["a", "b"], ["b", "c"]]


@pytest.mark.parametrize("cut", ["put", "pipe_file"])
def test_copy_that_was_cut_off_is_the_one_before(
    cut: str, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    write(here, {"checkpoints/1/state": "one", "journal": "1"})
    mirror = Mirror(bucket, here)
    mirror.push()
    (here / "checkpoints/1/state").unlink()
    write(here, {"checkpoints/2/a": "two", "checkpoints/2/b": "two", "journal": "1, 2"})
    with monkeypatch.context() as patch:
        patch.setattr(mirror._store, cut, failing(99, getattr(mirror._store, cut)))
        with pytest.raises(InfrastructureError, match=f"mirror={bucket} failed {ATTEMPTS} times \\(Conn"):
            mirror.push()
    assert pulled(bucket, tmp_path / "there") == {"checkpoints/1/state": "one", "journal": "1"}
    mirror.push()
    assert pulled(bucket, tmp_path / "there") == contents(here)
    write(here, {"journal": "1, 2, 3"})
    mirror.push()
    copied = [path for path in (tmp_path / "bucket").rglob("*") if path.is_file()]
    assert {path.name: path.read_text() for path in copied if path.name != MANIFEST} == {
        "a": "two",
        "b": "two",
        "journal": "1, 2, 3",
    }
    assert len(copied) == 4  # what the push left that was cut off is gone by the next but one


def test_log_that_grows_while_it_is_copied_comes_as_it_was(
    tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "here", {"journal": "1"})
    mirror = Mirror(bucket, tmp_path / "here")
    put = mirror._store.put

    def late(*arguments: Any) -> None:
        write(tmp_path / "here", {"journal": "1, 2", "blob of 2": ""})
        put(*arguments)

    monkeypatch.setattr(mirror._store, "put", late)
    mirror.push()
    assert pulled(bucket, tmp_path / "there") == {"journal": "1"}
    mirror.push()
    assert pulled(bucket, tmp_path / "there") == {"journal": "1, 2", "blob of 2": ""}


def test_file_that_lost_bytes_in_the_bucket_is_named(tmp_path: Path, bucket: str) -> None:
    write(tmp_path / "here", {"a": "123"})
    Mirror(bucket, tmp_path / "here").push()
    (copied,) = (tmp_path / "bucket").rglob("a")
    copied.write_text("12")
    with pytest.raises(InfrastructureError, match="has 2 bytes of a, its manifest says 3"):
        pulled(bucket, tmp_path / "there")


def test_lost_manifest_is_no_new_mirror(tmp_path: Path, bucket: str) -> None:
    for text in ("first", "second"):
        write(tmp_path / "a", {"journal.jsonl": text})
        Mirror(bucket, tmp_path / "a").push()
    (tmp_path / "bucket" / "run" / MANIFEST).unlink()
    with pytest.raises(ConfigError, match=f"{MANIFEST} is missing, but not the snapshots"):
        pulled(bucket, tmp_path / "b")


def test_interrupted_first_copy_is_a_new_mirror(tmp_path: Path, bucket: str) -> None:
    write(tmp_path / "bucket" / "run" / "000001-0123abcd", {"journal.jsonl": "half"})
    assert pulled(bucket, tmp_path / "a") == {}
    write(tmp_path / "a", {"journal.jsonl": "whole"})
    Mirror(bucket, tmp_path / "a").push()
    assert pulled(bucket, tmp_path / "b") == {"journal.jsonl": "whole"}


def test_fetching_that_was_cut_off_is_begun_again(tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "here", {"a": "1", "b": "2"})
    Mirror(bucket, tmp_path / "here").push()
    there = tmp_path / "there"
    mirror = Mirror(bucket, there)
    there.mkdir()

    def one_of_two(sources: list[str], targets: list[str]) -> None:
        Path(targets[0]).write_text(Path(sources[0]).read_text())
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mirror._store, "get", one_of_two)
        with pytest.raises(KeyboardInterrupt):
            mirror.pull()
    assert len(contents(there)) == 1
    for url in (None, f"{bucket}2"):
        with pytest.raises(ConfigError, match=f"only a part of the copy in {bucket}; give mirror="):
            require_complete(there, url)
    with pytest.raises(ConfigError, match="only a part of the copy"):
        Mirror(f"{bucket}2", there).pull()
    assert pulled(bucket, there) == {"a": "1", "b": "2"}
    require_complete(there, None)


def test_short_failure_of_the_store_is_sat_out(tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "here", {"a": "1"})
    mirror = Mirror(bucket, tmp_path / "here")
    monkeypatch.setattr(mirror._store, "put", failing(ATTEMPTS - 1, mirror._store.put))
    mirror.push()
    assert pulled(bucket, tmp_path / "there") == {"a": "1"}


def test_two_machines_with_one_mirror_are_told(tmp_path: Path, bucket: str) -> None:
    write(tmp_path / "here", {"a": "1"})
    Mirror(bucket, tmp_path / "here").push()
    pulled(bucket, tmp_path / "there")
    for name, text in (("there", "2"), ("here", "3")):
        write(tmp_path / name, {"a": text * 2})
    Mirror(bucket, tmp_path / "there").push()
    with pytest.raises(ConfigError, match="was written by another machine"):
        Mirror(bucket, tmp_path / "here").push()
    assert pulled(bucket, tmp_path / "third") == {"a": "22"}


def test_folder_of_another_run_is_left_alone(tmp_path: Path, bucket: str) -> None:
    write(tmp_path / "here", {"a": "1"})
    Mirror(bucket, tmp_path / "here").push()
    write(tmp_path / "other", {"b": "2"})
    with pytest.raises(ConfigError, match="holds a run already, and mirror="):
        Mirror(bucket, tmp_path / "other").pull()
    assert contents(tmp_path / "other") == {"b": "2"}
    fsspec.filesystem("file").rm(str(tmp_path / "bucket/run" / MANIFEST))
    Mirror(bucket, tmp_path / "other").push()  # the first copy of another run
    with pytest.raises(ConfigError, match="is older than"):
        Mirror(bucket, tmp_path / "here").pull()


@pytest.mark.parametrize(("url", "words"), [("gs://bucket/run", "gcsfs"), ("nowhere://run", "Protocol not known")])
def test_url_that_nothing_here_understands_is_refused(url: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        Mirror(url, tmp_path)


def test_run_may_go_to_a_new_mirror(tmp_path: Path, bucket: str) -> None:
    write(tmp_path / "here", {"a": "1"})
    Mirror(bucket, tmp_path / "here").push()
    other = Mirror(f"{bucket}2", tmp_path / "here")
    assert other.pull() == 0
    other.push()
    assert pulled(f"{bucket}2", tmp_path / "there") == {"a": "1"}


def test_checkpoint_that_only_this_machine_had_leaves_no_folder(tmp_path: Path, bucket: str) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    write(here, {"checkpoints/4/state": "four"})
    Mirror(bucket, here).push()
    pulled(bucket, there)
    write(here, {"checkpoints/8/state": "never copied"})  # and this machine is gone
    write(there, {"checkpoints/6/state": "six"})
    Mirror(bucket, there).push()
    assert pulled(bucket, here) == {"checkpoints/4/state": "four", "checkpoints/6/state": "six"}
    assert sorted(path.name for path in (here / "checkpoints").iterdir()) == ["4", "6"]


def test_machine_that_was_overtaken_while_it_copied_is_told(
    tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "here", {"a": "1"})
    Mirror(bucket, tmp_path / "here").push()
    pulled(bucket, tmp_path / "there")
    write(tmp_path / "here", {"a": "22"})
    write(tmp_path / "there", {"a": "333"})
    slow, quick = Mirror(bucket, tmp_path / "here"), Mirror(bucket, tmp_path / "there")
    put = slow._put

    def overtaken(paths: list[str], snapshot: str) -> None:
        put(paths, snapshot)
        quick.push()

    monkeypatch.setattr(slow, "_put", overtaken)
    with pytest.raises(ConfigError, match="was written by another machine"):
        slow.push()
    assert pulled(bucket, tmp_path / "third") == {"a": "333"}


def test_what_journals_speak_of_is_looked_for_after_them(
    tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An action that ends while the folder is scanned: its files are in the copy if its line in the journal is."""
    here = tmp_path / "here"
    write(here, {"blobs/ab/old": "", "cache/x": "", "ppo/actions/0.jsonl": ""})
    stat = Path.stat

    def acting(path: Path, **options: Any) -> Any:
        if path.name == "old" and not (here / "blobs/ab/new").exists():
            write(here, {"ppo/actions/0.jsonl": "new"})
            (here / "blobs/zz").mkdir()
            write(here, {"blobs/zz/new": ""})
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", acting)
    Mirror(bucket, here).push()
    monkeypatch.undo()
    found = pulled(bucket, tmp_path / "there")
    assert "new" not in found["ppo/actions/0.jsonl"] or "blobs/zz/new" in found
