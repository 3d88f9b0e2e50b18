"""One destroyed byte range of a run's files: the same content, an older whole state, or one line whose remedy works."""

import logging
import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from mlagent_jax.configuration.loading import load_config, to_dict
from mlagent_jax.run.mirror import Mirror
from mlagent_jax.run.run_dir import RunDir
from mlagent_jax.run.stage_records import StageRecords
from mlagent_jax.stages import load_stages
from mlagent_jax.train import _explain
from mlagent_jax.training.checkpoint import Checkpoints
from rollout.dataset.selection import Selection, read_selection, write_selection
from rollout.endpoint import Exchanges
from rollout.executor.result_cache.result_store import ResultStore
from rollout.options import Select
from rollout.storage.atomic_write import write_json, write_text
from rollout.storage.blob_store import BlobStore
from rollout.storage.digests import require_policy, require_trajectories, write_digests
from rollout.storage.journal import Journal
from rollout.storage.shards import Part
from rollout.storage.trajectories import iterate_trajectories, to_record
from rollout.types import Snapshot, Step, Trajectory
from tasks.checksum import sealed
from tasks.entry import Prepared, read_prepared
from tasks.feedback import Feedback, Outcome
from tasks.naming import Names

AGAIN = "done again"  # an output that is made again by the same command


@dataclass(frozen=True)
class Kept:
    """A part of a run directory: how it is written and read back, and whether a value that was read is an older one."""

    make: Callable[[Path], Any]
    read: Callable[[Path], Any]
    is_older: Callable[[Any, Any], bool] = lambda found, expected: found == AGAIN
    pattern: str = "**/*"  # of the files that are destroyed


def is_subset(found: Any, expected: Any) -> bool:
    """Return whether records are missing and none is new: their work is done again."""
    return found == AGAIN or all(record in expected for record in found)


def make_checkpoints(root: Path) -> None:
    with Checkpoints(root / "checkpoints") as checkpoints:
        for step in (10, 20):
            checkpoints.save(step, {"w": jnp.arange(64.0) + step}, {"step": step})


def read_checkpoints(root: Path) -> Any:
    if not (root / "checkpoints").exists():
        return AGAIN
    with Checkpoints(root / "checkpoints") as checkpoints:
        found = checkpoints.latest({"w": jnp.zeros(64)})
    assert found is not None
    return np.asarray(found[0]["w"]).tolist(), found[1]


def is_older_checkpoint(found: Any, expected: Any) -> bool:
    return found == AGAIN or found == ((np.arange(64.0) + 10).tolist(), {"step": 10})


def make_journal(root: Path) -> None:
    with Journal(root / "00003.jsonl") as journal:
        for number in range(6):
            journal.append({"schema": 2, "start": number, "experience": {"logprobs": [-0.125 * number, -1.5]}})


def read_journal_again(root: Path) -> Any:
    with Journal(root / "00003.jsonl") as journal:
        return list(journal.records)


def trajectory(number: int) -> Trajectory:
    snapshot = Snapshot({"train.py": "ab" * 32}, 0.5, None, "train.py", 0.25)
    step = Step("Thought: try.", "Edit Script", {}, Feedback(Outcome.EDIT, "r2: 0.5", 0.75), snapshot, snapshot, 1.5)
    names = Names("project", "train.csv", "test.csv", "train.py")
    return Trajectory(f"1-{number:05d}", "toy", number, names, "Predict.", (), (step,) * 2, "step_limit")


def make_collection(root: Path) -> None:
    folder = root / "trajectories"
    with Part(folder, 0, [f"1-{number:05d}" for number in range(4)]) as part:
        for number in range(4):
            part.add(trajectory(number))
        part.store()
    with Part(folder, 1, [f"1-{number:05d}" for number in range(4, 8)]) as part:
        for number in range(4, 7):
            part.add(trajectory(number))


def read_collection(root: Path) -> Any:
    try:
        return [to_record(each) for each in iterate_trajectories(root / "trajectories")]
    except FileNotFoundError:
        return AGAIN


def make_finished_collection(root: Path) -> None:
    make_collection(root)
    write_digests(root / "trajectories")
    write_text(root / "stages" / "collect.json", "")


def read_finished_collection(root: Path) -> Any:
    if not (root / "stages" / "collect.json").exists():
        return AGAIN
    require_trajectories(RunDir(root))
    return read_collection(root)


def make_exchanges(root: Path) -> None:
    counts = {"answered": True, "end": "stop", "empty": 0, "attempts": 1, "input": 5, "cached": 1, "output": 2}
    exchanges = Exchanges(root / "exchanges")
    for number in range(5):
        body = {"request": {"messages": [f"question {number}"]}, "answer": f"answer {number * 111}"}
        exchanges.add(f"{number:064x}", counts | {"estimated": 0}, body)
    exchanges.close()


def read_exchanges(root: Path) -> Any:
    exchanges = Exchanges(root / "exchanges")
    found = [exchanges.find(f"{number:064x}") for number in range(5)]
    exchanges.close()
    return [dict(each) for each in found if each is not None]


def records(root: Path) -> StageRecords:
    return StageRecords(RunDir(root), load_stages(), to_dict(load_config()))


def make_records(root: Path) -> None:
    for name in ("collect", "sft"):
        records(root).begin(name)
        for stage in load_stages():
            for output in stage.outputs if stage.name == name else ():
                write_text(root / output, name)
        records(root).finish(name, {"validation_loss": 1.25, "steps": 100}, 12.0)
    records(root).begin("ppo")


def read_records(root: Path) -> Any:
    found = records(root)
    return [(name, found.record(name), found.changed(name)) for name in ("collect", "sft", "ppo")]


def is_older_record(found: Any, expected: Any) -> bool:
    """Return whether a stage runs again, because its record is gone or an earlier stage runs again."""
    return all(
        name == known_name and (record == known or record is None)
        for (name, record, _), (known_name, known, _) in zip(found, expected, strict=True)
    )


def make_selection(root: Path) -> None:
    selection = Selection({"1-0": "ab" * 32, "1-1": "cd" * 32}, {"1-2": "ef" * 32}, [], {})
    write_selection(root / "selection.json", selection, Select(), 7)


def read_selected(root: Path) -> Any:
    if not (root / "selection.json").exists():
        return AGAIN
    found = read_selection(root / "selection.json")
    return dict(found.train), dict(found.validation)


def make_blobs(root: Path) -> None:
    write_text(root / "public/train.csv", "a,b\n1,2\n")
    write_text(root / "public/images/1.txt", "pixels")
    store = BlobStore(root / "blobs")
    store.put(b"print('an edited script')\n")
    store.put_folder(root / "public")


def read_blobs(root: Path) -> Any:
    """Return what scripts see: data is stored again at the start of every command."""
    store = BlobStore(root / "blobs")
    folder = store.checked_folder(store.put_folder(root / "public"))
    digests = [f"{path.parent.name}{path.name}" for path in (root / "blobs").glob("??/*") if len(path.name) == 62]
    return sorted(store.get(digest) for digest in digests), (folder / "images/1.txt").read_bytes()


def make_policy(root: Path) -> None:
    folder = root / "sft/model"
    folder.mkdir(parents=True)
    save_file({"w": np.arange(99, dtype=np.float32)}, folder / "model.safetensors")
    write_json(folder / "config.json", {"rope_theta": 10000.0})
    write_json(folder / "model.safetensors.index.json", {"weight_map": {"w": "model.safetensors"}})
    write_json(root / "tokenizer/tokenizer.json", {"merges": ["a b"]})
    write_digests(folder)
    write_digests(root / "tokenizer")
    write_text(root / "stages/sft.json", "")


def read_policy(root: Path) -> Any:
    if not (root / "stages/sft.json").exists():
        return AGAIN
    require_policy(RunDir(root), "sft")
    paths = [*(root / "sft/model").iterdir(), *(root / "tokenizer").iterdir()]
    return sorted((path.name, path.read_bytes()) for path in paths if path.name != "digests.json")


def make_prepared(root: Path) -> None:
    prepared = Prepared(0.5, 0.25, 0.01, 1.5, {"raw": "ab"}, "cd" * 32, "ef" * 8)
    write_json(root / "task.json", sealed(vars(prepared)))


def make_results(root: Path) -> None:
    ResultStore(root / "cache", 10).write("ab" * 32, {"exit": "ok", "seconds": 1.5}, b"id,target\n0,1\n")


def make_mirrored(root: Path) -> None:
    write_text(root / "run/log.txt", "begun")
    mirror = Mirror(f"file://{root}/bucket", root / "run")
    mirror.pull()
    mirror.push()
    os.rename(root / "bucket", root / "bucket.away")
    shutil.copytree(root / "bucket.away", root / "bucket")
    shutil.rmtree(root / "bucket.away")


def read_mirrored(root: Path) -> Any:
    run, bucket = root / "run", root / "bucket"
    if not (run / ".mirror.json").exists() or not (bucket / "manifest.json").exists():
        return AGAIN  # the run gets another mirror
    Mirror(f"file://{bucket}", run).pull()
    return {path.name: path.read_bytes() for path in run.iterdir() if path.name != ".mirror.json"}


KEPT = {
    "checkpoints": Kept(make_checkpoints, read_checkpoints, is_older_checkpoint),
    "journal": Kept(make_journal, read_journal_again, is_subset),
    "collection": Kept(make_collection, read_collection, is_subset),
    "finished collection": Kept(make_finished_collection, read_finished_collection),
    "exchanges": Kept(make_exchanges, read_exchanges, is_subset),
    "stage records": Kept(make_records, read_records, is_older_record),
    "selection": Kept(make_selection, read_selected),
    "blobs": Kept(make_blobs, read_blobs, lambda found, expected: set(found[0]) <= set(expected[0]), "blobs/**/*"),
    "policy": Kept(make_policy, read_policy),
    "prepared task": Kept(make_prepared, read_prepared, lambda found, expected: found is None),
    "result cache": Kept(
        make_results,
        lambda root: ResultStore(root / "cache", 10).read("ab" * 32),
        lambda found, expected: found is None,
    ),
    "mirror": Kept(make_mirrored, read_mirrored, pattern="*/*m*i*.json"),
}
SLOW = ("checkpoints", "stage records")
HOWS = ["zeros", "noise", "bit", "digit", "spaces", "cut out", "cut short", "removed"]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Any]]:
    """Return what makes a part once and returns its folder and content."""
    made: dict[str, tuple[Path, Any]] = {}

    def original(name: str) -> tuple[Path, Any]:
        if name not in made:
            root = tmp_path_factory.mktemp("original") / "run"
            root.mkdir()
            KEPT[name].make(root)
            made[name] = root, KEPT[name].read(root)
        return made[name]

    return original


def destroy(path: Path, how: str, place: float, length: int, seed: int) -> None:
    """Destroy one byte range of a file."""
    content = bytearray(path.read_bytes())
    first = min(int(place * len(content)), max(len(content) - 1, 0))
    last = min(first + length, len(content))
    match how:
        case "removed":
            path.unlink()
            return
        case "cut short":
            del content[first:]
        case "cut out":
            del content[first:last]
        case "zeros":
            content[first:last] = bytes(last - first)
        case "spaces":
            content[first:last] = b" " * (last - first)
        case "noise":
            content[first:last] = random.Random(seed).randbytes(last - first)
        case "bit":
            content[first] ^= 1 << seed % 8
        case "digit":
            digits = [i for i, byte in enumerate(content) if byte in b"0123456789"]
            if digits:
                where = digits[int(place * (len(digits) - 1))]
                content[where] = ord(str((int(chr(content[where])) + 1 + seed % 9) % 10))
    path.unlink()  # a new file, because blobs are links
    path.write_bytes(content)


def check(original: tuple[Path, Any], kept: Kept, file: int, how: str, place: float, length: int, seed: int) -> str:
    """Destroy a byte range in a copy, open it, and return what came of it."""
    source, expected = original
    root = source.with_name("copy")
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(source, root)
    files = sorted(path for path in root.glob(kept.pattern) if path.is_file() and path.stat().st_size)
    path = files[file % len(files)]
    destroy(path, how, place, length, seed)
    followed = 0
    while True:
        try:
            found = kept.read(root)
            break
        except Exception as error:
            explained = _explain(error, str(root))
            assert explained is not None, f"{path}: a traceback: {error!r}"
            assert "\n" not in explained[0] and str(root) in explained[0], explained
            followed += 1
            assert followed < 9, f"the remedy leads in a circle: {explained[0]}"
            follow_remedy(explained[0], root)
    if followed:
        return "one line"
    if found == expected:
        return "whole"
    assert kept.is_older(found, expected), f"{path} {how}: silently {found}, expected {expected}"
    return "older"


def follow_remedy(message: str, root: Path) -> None:
    """Do what a message says."""
    command = re.search(r"`([^`]+)`", message)
    if command is not None:
        subprocess.run(command[1], shell=True, check=True)
    elif "remove selection.json" in message:
        (root / "selection.json").unlink()
    elif "the record of its stage" in message:
        Path(message.partition(" ")[0]).unlink()
    elif "remove the run's folders" in message:
        Path(message.split()[1]).unlink(missing_ok=True)
    elif "delete it and run again" in message:
        shutil.rmtree(message.split()[1])
    else:
        assert "give another mirror" in message, message
        (root / "bucket/manifest.json").unlink()


DAMAGE = {
    "file": st.integers(0, 99),
    "how": st.sampled_from(HOWS),
    "place": st.floats(0, 1),
    "length": st.sampled_from([1, 2, 7, 30, 200, 5000]),
    "seed": st.integers(0, 2**16),
}
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]


def examined(originals: Callable[[str], tuple[Path, Any]], name: str, num_examples: int) -> set[str]:
    """Return what came of destroyed byte ranges in a part."""
    original, outcomes = originals(name), set[str]()
    logging.getLogger("absl").setLevel(logging.CRITICAL)

    @settings(max_examples=num_examples, suppress_health_check=QUIET, database=None)
    @given(**DAMAGE)
    def examine(**damage: Any) -> None:
        outcomes.add(check(original, KEPT[name], **damage))

    examine()
    return outcomes


@pytest.mark.parametrize("name", KEPT)
def test_a_destroyed_byte_range_is_noticed(name: str, originals: Callable[[str], tuple[Path, Any]]) -> None:
    outcomes = examined(originals, name, 8 if name in SLOW else 20)
    assert outcomes & {"one line", "older"}, "the damage must be able to matter"


@pytest.mark.slow
@pytest.mark.parametrize("name", KEPT)
def test_many_destroyed_byte_ranges_are_noticed(name: str, originals: Callable[[str], tuple[Path, Any]]) -> None:
    examined(originals, name, 40 if name in SLOW else 200)
