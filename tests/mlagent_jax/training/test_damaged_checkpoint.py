"""A damaged checkpoint is passed over for the older whole one, with one line, or the run ends in one line."""

import errno
import logging
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import PyTree

from mlagent_jax.multihost import preemption
from mlagent_jax.training import checkpoint
from mlagent_jax.training.checkpoint import Checkpoints
from rollout.errors import CorruptRecord
from rollout.storage.digests import DIGESTS, has_digests


def state(step: int) -> PyTree:
    return {"weights": jnp.arange(300.0) + step, "moments": {"m": jnp.full((8, 8), step / 7), "count": jnp.int32(step)}}


def save(folder: Path, *steps: int) -> Path:
    with Checkpoints(folder) as checkpoints:
        for step in steps:
            checkpoints.save(step, state(step), {"update": step})
    return folder


def resumed(folder: Path) -> int | None:
    """Return the step that a run goes on from, whose arrays must be right."""
    with Checkpoints(folder) as checkpoints:
        found = checkpoints.latest(state(0))
    if found is None:
        return None
    jax.tree.map(np.testing.assert_array_equal, found[0], state(found[1]["update"]))
    return found[1]["update"]


def largest(folder: Path) -> Path:
    files = (path for path in (folder / "state").rglob("*") if path.is_file())
    return max(files, key=lambda path: path.stat().st_size)


def cut_short(folder: Path) -> None:
    os.truncate(largest(folder), largest(folder).stat().st_size // 2)


def flip_a_bit(folder: Path) -> None:
    path = largest(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def remove_digests(folder: Path) -> None:
    (folder / DIGESTS).unlink()


def empty_everything(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


def remove_a_folder(folder: Path) -> None:
    shutil.rmtree(folder / "state")


def empty_digests(folder: Path) -> None:
    remove_a_folder(folder)
    (folder / DIGESTS).write_text("{}")


def digests_are_a_folder(folder: Path) -> None:
    (folder / DIGESTS).unlink()
    (folder / DIGESTS).mkdir()


def put_a_file_in_its_place(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


def move_to_a_lost_disk(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to(folder.with_name("lost disk"))


DAMAGE = [
    cut_short,
    flip_a_bit,
    remove_digests,
    empty_everything,
    remove_a_folder,
    empty_digests,
    digests_are_a_folder,
    put_a_file_in_its_place,
    move_to_a_lost_disk,
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_older_whole_checkpoint_is_used_with_one_line(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    folder = save(tmp_path / "checkpoints", 10, 20, 30)
    damage(folder / "30")
    with caplog.at_level(logging.WARNING, "mlagent_jax"):
        assert resumed(folder) == 20
    (record,) = [record for record in caplog.records if record.name.startswith("mlagent_jax")]
    line = record.getMessage()
    assert line.startswith(f"checkpoint {folder / '30'} is not whole") and "the older one of step 20" in line
    assert "\n" not in line
    save(folder, 30)
    assert resumed(folder) == 30 and sorted(path.name for path in folder.iterdir()) == ["20", "30"]


@pytest.mark.parametrize("damage", [cut_short, flip_a_bit, empty_everything, remove_a_folder])
def test_without_a_whole_checkpoint_one_line_says_how_to_begin_again(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    folder = save(tmp_path / "checkpoints", 10, 20)
    for step in ("10", "20"):
        damage(folder / step)
    with pytest.raises(CorruptRecord, match="remove the folder with `rm -r .*` to train from the beginning") as error:
        resumed(folder)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)
    assert sorted(path.name for path in folder.iterdir()) == ["10", "20"], "nothing is removed unless a run goes on"
    shutil.rmtree(folder)
    assert resumed(folder) is None


def test_a_checkpoint_of_an_earlier_version_has_no_digests_and_is_used(tmp_path: Path) -> None:
    folder = save(tmp_path / "checkpoints", 10)
    remove_digests(folder / "10")
    assert resumed(folder) == 10
    remove_a_folder(folder / "10")
    with pytest.raises(CorruptRecord, match=r"no checkpoint in .* is whole .*; remove the folder") as error:
        resumed(folder)
    assert "\n" not in str(error.value)


def test_a_damaged_older_checkpoint_does_not_matter(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = save(tmp_path / "checkpoints", 10, 20)
    empty_everything(folder / "10")
    assert resumed(folder) == 20
    assert not [record for record in caplog.records if record.name.startswith("mlagent_jax")]
    save(folder, 30)
    assert resumed(folder) == 30


def test_a_full_disk_is_an_error_of_the_system_and_earlier_checkpoints_stay(
    tmp_path: Path, files_limited_to: Callable
) -> None:
    folder = save(tmp_path / "checkpoints", 10)
    large = {"weights": jax.random.normal(jax.random.key(0), (50_000,))}
    with files_limited_to(20_000), pytest.raises(OSError, match="File too large") as error:
        with Checkpoints(folder) as checkpoints:
            checkpoints.save(20, large, {})
    assert (error.value.errno, error.value.filename) == (errno.EFBIG, str(folder))
    assert resumed(folder) == 10


FILL = """
import sys
from pathlib import Path
import jax, jax.numpy as jnp
from mlagent_jax.train import _explain
from mlagent_jax.training.checkpoint import Checkpoints
folder, megabytes = Path(sys.argv[1]), int(sys.argv[2])
state = {"weights": jax.random.normal(jax.random.key(0), (megabytes, 2**18)), "step": jnp.int32(megabytes)}
try:
    with Checkpoints(folder) as checkpoints:
        found = checkpoints.latest(state) if megabytes == 1 else None
        state = found[0] if found else state
        print("resumed", found and found[1]["update"])
        checkpoints.save(int(sys.argv[3]), state, {"update": int(sys.argv[3])})
except Exception as error:
    print("error", _explain(error, "the run directory"))
"""


def test_a_disk_that_fills_inside_a_checkpoint_costs_that_checkpoint_alone(tmp_path: Path) -> None:
    """On a real small disk; the first save fits, the second does not, and the third goes on from the first."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", disk], capture_output=True).returncode:
        pytest.skip("this user may not mount a small disk")
    (tmp_path / "fill.py").write_text(FILL)
    python = shlex.join([sys.executable, str(tmp_path / "fill.py"), str(disk / "checkpoints")])
    script = f"mount -t tmpfs -o size=6m none {disk} && {python} 1 10 && {python} 8 20 && {python} 1 30"
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, env=environment)
    lines = done.stdout.splitlines()
    assert lines[:2] == ["resumed None", "resumed None"] and lines[-1] == "resumed 10", done.stderr
    (error,) = [line for line in lines if line.startswith("error")]
    assert "the disk is full" in error and str(disk) in error and "run the same command to go on" in error


def test_copies_of_arrays_in_host_memory_are_few() -> None:
    """orbax refuses an array of the size of its limit, and makes copies up to it."""
    small, large = (np.broadcast_to(np.float32(0), size) for size in (10**6, 500_000_000))
    assert checkpoint.concurrent_gb({"a": [small] * 10_000}) == 1
    assert checkpoint.concurrent_gb({"a": small, "b": large}) == 3


@pytest.fixture
def in_background(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write checkpoints as those of arrays on accelerators."""
    monkeypatch.setattr(checkpoint, "is_read_in_place", lambda state: False)


@pytest.mark.usefixtures("in_background")
@pytest.mark.parametrize("then", ["save", "finish", "latest", "end"])
def test_failure_in_the_background_is_raised_by_what_comes_next(
    tmp_path: Path, files_limited_to: Callable, capfd: pytest.CaptureFixture[str], then: str
) -> None:
    folder = save(tmp_path / "checkpoints", 10)
    large = {"weights": jax.random.normal(jax.random.key(0), (50_000,))}
    returned = False
    with files_limited_to(20_000), pytest.raises(OSError, match="File too large"), Checkpoints(folder) as checkpoints:
        checkpoints.save(20, large, {})
        returned = True
        match then:
            case "save":
                checkpoints.save(30, state(30), {"update": 30})
            case "finish":
                checkpoints.finish()
            case "latest":
                checkpoints.latest(large)
    assert returned and resumed(folder) == 10
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("in_background")
def test_checkpoint_is_whole_at_the_end_of_the_block_even_if_a_signal_ends_it(tmp_path: Path) -> None:
    with pytest.raises(preemption.Saved), Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(10, state(10), {"update": 10})
        assert not has_digests(tmp_path / "10")  # it is still being written
        raise preemption.Saved
    assert has_digests(tmp_path / "10") and resumed(tmp_path) == 10


@pytest.mark.usefixtures("in_background")
def test_other_errors_are_not_hidden_by_a_failed_checkpoint(
    tmp_path: Path, files_limited_to: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    large = {"weights": jax.random.normal(jax.random.key(0), (50_000,))}
    with files_limited_to(20_000), pytest.raises(KeyError), Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(20, large, {})
        raise KeyError
    assert "could not be written" in caplog.text


def test_what_a_step_does_to_its_donated_state_is_not_stored(tmp_path: Path) -> None:
    step = jax.jit(lambda x: x + 1, donate_argnums=0)
    weights = jnp.zeros(4_000_000)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"weights": weights}, {})
        for _ in range(5):
            weights = step(weights)
        found = checkpoints.latest({"weights": jnp.ones(4_000_000)})
    assert found is not None and not found[0]["weights"].any()
