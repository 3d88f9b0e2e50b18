"""A follower reads every line of a growing metrics file once, however often the run resumes."""

from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlagent_jax.tracking.jsonl import JsonlTracker, drop_stages, read_metrics
from mlagent_jax.tracking.tail import Tail


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 3)), max_size=8), st.integers(0, 5), st.data()
)
def test_every_line_is_read_once_however_often_a_run_resumes(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[int, bool, int]], known: int, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    read, step = [], 0
    with closing(Tail(path, known)) as tail:
        for more, reads_between, back in parts:
            with JsonlTracker(path) as tracker:
                tracker.rewind("ppo/update", step - 1)
                for _ in range(more):
                    tracker.log({"ppo/update": step, "ppo/loss": 0.5 * step})
                    step += 1
                    if reads_between and data.draw(st.booleans()):
                        read += tail.read()
            if reads_between:
                read += tail.read()
            step = max(step - back, 0)
        read += tail.read()
    seen = [line.index for line in read]
    assert seen == sorted(set(seen)) and all(index >= known for index in seen)
    assert set(range(known, len(read_metrics(path)))) <= set(seen)
    assert all((line.step, line.figures["ppo/loss"]) == (line.index, 0.5 * line.index) for line in read)


def test_incomplete_line_is_read_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path, 0)
    assert tail.read() == []
    path.write_text('{"sft/step": 1.0}\n{"sft/st')
    assert [line.step for line in tail.read()] == [1]
    with open(path, "a") as file:
        file.write('ep": 2.0}\n')
    assert [(line.stage, line.step) for line in tail.read()] == [("sft", 2)]
    tail.close()


@pytest.mark.parametrize("text", ["[1]", "{}", '{"a": "x"}', "{", '{"a": NaN}', "\udcff"])
def test_damaged_line_is_named_after_the_lines_before_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"sft/step": 1}}\n{text}\n', errors="surrogateescape")
    with closing(Tail(path, 0)) as tail:
        assert [line.step for line in tail.read()] == [1]
        for _ in range(2):
            with pytest.raises(ValueError, match=r"metrics\.jsonl line 2 is damaged; remove it with `sed"):
                tail.read()


def test_figures_of_a_replaced_stage_and_of_later_ones_stay_with_the_replaced_output(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with JsonlTracker(path) as tracker:
        tracker.log({"collect/num_trajectories": 3})
        tracker.log({"sft/step": 1})
        tracker.log({"ppo/update": 0})
    assert drop_stages(path, ("sft", "ppo"), tmp_path / "old.jsonl")
    assert [next(iter(line)) for line in read_metrics(path)] == ["collect/num_trajectories"]
    assert [next(iter(line)) for line in read_metrics(tmp_path / "old.jsonl")] == ["sft/step", "ppo/update"]
    assert not drop_stages(path, ("sft", "ppo"), tmp_path / "none.jsonl") and not (tmp_path / "none.jsonl").exists()
