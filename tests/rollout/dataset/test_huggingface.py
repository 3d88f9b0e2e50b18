"""Hugging Face's datasets reads a collection as it lies on disk."""

from pathlib import Path

import pytest

from rollout.storage.trajectories import to_record, write_trajectories
from rollout.types import Snapshot, Step, Trajectory
from tasks.feedback import Feedback, Outcome
from tasks.naming import Names


@pytest.mark.filterwarnings("ignore")  # the library's own are not ours to mend
def test_datasets_loads_every_field_of_a_collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets  # late: it reads the environment, and takes seconds

    states = [Snapshot({"a.py": "00", "b.py": f"{i}"}, 0.5 + i, None if i == 0 else 0.5, "a.py", 0.5) for i in range(3)]
    feedback = Feedback(Outcome.EDIT, "Saved.\n", 0.75)
    names = Names("maple", "oak_train.csv", "oak_test.csv", "a.py")
    found = []
    for number in range(4):
        steps = [
            Step("Thought: …", "List Files", {"dir_path": "."}, feedback, before, after, 0.25, "{}")
            for before, after in zip(states, states[1:], strict=False)
        ]
        found.append(Trajectory(f"{number}", "toy", number, names, "Predict.", ("a", "b"), tuple(steps), "step_limit"))
    for number in range(2):
        write_trajectories(tmp_path / f"part-0000{number}.parquet", found[2 * number : 2 * number + 2])
    files = {"train": str(tmp_path / "*.parquet")}
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert [dict(row) for row in loaded] == [to_record(one) for one in found]
