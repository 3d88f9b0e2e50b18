"""Trajectories on disk, and the journals that they are first written to."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.errors import CorruptRecord
from rollout.storage import trajectories as storage
from rollout.storage.journal import Journal
from rollout.storage.trajectories import (
    SCHEMA,
    from_record,
    read_trajectories,
    to_journal,
    to_record,
    write_trajectories,
)
from rollout.types import Snapshot, Step, Trajectory
from tasks.feedback import Feedback, Outcome
from tasks.naming import Names

TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
NUMBER = st.floats(allow_nan=False)
TEXTS = st.dictionaries(TEXT, TEXT, max_size=3)
SNAPSHOTS = st.builds(
    Snapshot, files=TEXTS, metric=NUMBER, last_submission=st.none() | NUMBER, best_script=TEXT, best_score=NUMBER
)
FEEDBACKS = st.builds(
    Feedback,
    outcome=st.sampled_from(Outcome),
    text=TEXT,
    metric=st.none() | NUMBER,
    validation=st.none() | NUMBER,
)
STEPS = st.builds(
    Step,
    response=TEXT,
    action=TEXT,
    arguments=TEXTS,
    feedback=FEEDBACKS,
    before=SNAPSHOTS,
    after=SNAPSHOTS,
    seconds=NUMBER,
    wording=TEXT,
)


def chained(steps: list[Step]) -> tuple[Step, ...]:
    """Return the steps with each one starting where the last one ended."""
    befores = [*(step.before for step in steps[:1]), *(step.after for step in steps)]
    return tuple(replace(step, before=before) for step, before in zip(steps, befores, strict=False))


TRAJECTORIES = st.builds(
    Trajectory,
    trajectory_id=TEXT,
    task=TEXT,
    seed=st.integers(0, 2**62),
    names=st.builds(Names, project=TEXT, train_file=TEXT, test_file=TEXT, script=TEXT),
    problem=TEXT,
    ideas=st.lists(TEXT, max_size=3).map(tuple),
    steps=st.lists(STEPS, max_size=3).map(chained),
    end=TEXT,
)
SNAPSHOT = Snapshot({"a.py": "00"}, 0.5, None, "a.py", 0.5)
EXAMPLE = Trajectory(
    trajectory_id="0-00001",
    task="toy",
    seed=1,
    names=Names("maple", "birch_train.csv", "birch_test.csv", "a.py"),
    problem="Research problem maple",
    ideas=("try trees",),
    steps=(
        Step("r", "List Files", {"dir_path": "."}, Feedback(Outcome.NON_EDIT, "f"), SNAPSHOT, SNAPSHOT, 0.25, "{}"),
    ),
    end="final_answer",
)


@settings(max_examples=30, deadline=None)
@given(st.lists(TRAJECTORIES, max_size=3))
def test_what_is_written_is_read_back_equal(tmp_path_factory: pytest.TempPathFactory, trajectories: list[Trajectory]):
    path = tmp_path_factory.mktemp("parts") / "part-00000.parquet"
    write_trajectories(path, trajectories)
    assert read_trajectories(path) == trajectories
    assert [from_record(json.loads(json.dumps(to_record(one)))) for one in trajectories] == trajectories
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_folder_is_read_in_the_order_of_its_files(tmp_path: Path):
    for number in (1, 0):
        one = replace(EXAMPLE, trajectory_id=str(number))
        write_trajectories(tmp_path / f"part-{number:05d}.parquet", [one])
    assert [one.trajectory_id for one in read_trajectories(tmp_path)] == ["0", "1"]


def test_nothing_to_read_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="stage=collect"):
        read_trajectories(tmp_path)
    with pytest.raises(FileNotFoundError, match="missing.parquet"):
        read_trajectories(tmp_path / "missing.parquet")


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "flipped"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str):
    path = tmp_path / "part-00000.parquet"
    write_trajectories(path, [EXAMPLE] * 20)
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[4:200] = bytes(196)
    damaged = {"cut": content[: len(content) // 2], "garbage": b"hello", "empty": b"", "flipped": bytes(flipped)}
    path.write_bytes(damaged[damage])
    with pytest.raises(CorruptRecord, match="part-00000.parquet"):
        read_trajectories(path)


@pytest.mark.parametrize("metadata", [{}, {"schema": "mlagent_jax.trajectory", "version": "99"}])
def test_another_schema_version_is_refused_with_both_versions(tmp_path: Path, metadata: dict[str, str]):
    path = tmp_path / "part-00000.parquet"
    write_trajectories(path, [EXAMPLE])
    pq.write_table(pq.read_table(path).replace_schema_metadata(metadata), path)
    with pytest.raises(CorruptRecord, match="expected mlagent_jax.trajectory 2"):
        read_trajectories(path)


@pytest.mark.parametrize(("version", "got"), [({}, "no version"), ({"version": 1}, "1")])
def test_a_journal_of_another_version_is_refused_with_both_versions(tmp_path: Path, version: dict, got: str):
    with Journal(tmp_path / "part-00000.jsonl") as journal:
        journal.append(to_journal(EXAMPLE), {**to_record(EXAMPLE), **version})
    with pytest.raises(CorruptRecord, match=f"part-00000.jsonl line 2 has another schema: got {got}, expected 2; "):
        read_trajectories(tmp_path)


def test_the_schema_holds_every_field_of_the_records():
    def names(kind: object) -> set[str]:
        return {kind.field(i).name for i in range(kind.num_fields)}  # type: ignore[attr-defined]

    steps = SCHEMA.field("steps").type.value_type
    assert set(SCHEMA.names) == {*asdict(EXAMPLE), "snapshots"}
    assert names(steps) == set(asdict(EXAMPLE.steps[0])) - {"before", "after"}
    assert names(SCHEMA.field("snapshots").type.value_type) == set(asdict(SNAPSHOT))


def test_a_file_is_read_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(storage, "BATCH_SIZE", 4)
    write_trajectories(tmp_path / "part.parquet", [replace(EXAMPLE, trajectory_id=str(i)) for i in range(10)])
    made = 0
    from_record = storage.from_record

    def counted(record: dict) -> Trajectory:
        nonlocal made
        made += 1
        return from_record(record)

    monkeypatch.setattr(storage, "from_record", counted)
    found = storage.iterate_trajectories(tmp_path / "part.parquet")
    assert next(found).trajectory_id == "0" and made == 1
    assert [one.trajectory_id for one in found] == [str(i) for i in range(1, 10)]
    assert pq.ParquetFile(tmp_path / "part.parquet").num_row_groups == 3


def test_a_journal_keeps_what_was_appended_and_drops_a_torn_last_line(tmp_path: Path):
    path = tmp_path / "run" / "journal.jsonl"
    with Journal(path) as journal:
        journal.append({"a": 1})
        journal.append({"b": float("nan")})
    with path.open("ab") as file:
        file.write(b'{"c": 3')
    with Journal(path) as journal:
        assert len(journal.records) == 2
        journal.append({"d": 0.1 + 0.2})
    with Journal(path) as journal:
        assert [list(record) for record in journal.records] == [["a"], ["b"], ["d"]]
        assert journal.records[2]["d"] == 0.1 + 0.2


def test_a_journal_damaged_in_the_middle_is_named_with_its_line(tmp_path: Path):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"schema": 1}\nnonsense\n{"schema": 2}\n')
    with pytest.raises(CorruptRecord, match="journal.jsonl line 2"):
        Journal(path)


def test_an_unfinished_part_is_read_once_and_left_unchanged(tmp_path: Path):
    first, second, third, fourth = (replace(EXAMPLE, trajectory_id=name) for name in "abcd")
    write_trajectories(tmp_path / "part-00000.parquet", [first])
    write_trajectories(tmp_path / "part-00001.parquet", [second])
    with Journal(tmp_path / "part-00001.jsonl") as journal, Journal(tmp_path / "part-00002.jsonl") as last:
        journal.append(to_journal(second), to_journal(third))  # started again after the file was made
        last.append(to_journal(fourth))
    torn = (tmp_path / "part-00002.jsonl").read_bytes() + b'{"trajectory_id": "e", "ta'
    (tmp_path / "part-00002.jsonl").write_bytes(torn)
    for name in ("exported.jsonl", "mine.jsonl"):  # not journals
        (tmp_path / name).write_text("{}\n")
    write_trajectories(tmp_path / "mine.parquet", [])
    assert read_trajectories(tmp_path) == [first, second, third, fourth]
    assert (tmp_path / "part-00002.jsonl").read_bytes() == torn
