"""The arithmetic of the ideas benchmark on pools of a few points."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import benchmarks.ideas
from benchmarks.ideas import compare, main, read_candidates

LINE = np.array([[0.0], [1.0], [4.0], [10.0]])


def test_figures_are_averages_over_pools_and_ranges_over_seeds() -> None:
    found = compare({"a": LINE, "b": 2 * LINE, "small": LINE[:2]}, 2, 40)
    # the largest means are at 10 and 0; the candidate at 4 is then 4 away
    assert found["mean"]["min_distance"] == {"mean": 15.0, "low": 15.0, "high": 15.0}
    assert found["mean"]["coverage"]["mean"] == 6.0
    assert found["fps"]["min_distance"]["mean"] > found["random"]["min_distance"]["mean"]
    for figures in found.values():
        for figure in figures.values():
            assert figure["low"] <= figure["mean"] <= figure["high"]
    assert found["random"]["min_distance"]["low"] < found["random"]["min_distance"]["high"]
    assert compare({"a": LINE}, 4, 3) == {}


def test_candidates_of_a_file_are_compared_and_the_result_says_of_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def embed(texts: Sequence[str], encoder: str | None) -> np.ndarray:
        return np.random.default_rng(0).normal(size=(len(texts), 4)).astype(np.float32)

    monkeypatch.setattr(benchmarks.ideas, "embed_texts", embed)
    file = tmp_path / "own.json"
    pool = [f"Idea {letter}." for letter in "abcdefgh"]
    file.write_text(json.dumps({"a": {"Data": [*pool, "1) idea A"], "Model": pool[:4]}, "b": {"Data": pool}}))
    arguments = [f"--candidates={file}", "--sizes", "3", "5", "--seeds=5", f"--results={tmp_path}"]
    assert main(arguments) == 0
    result = json.loads((tmp_path / "ideas.json").read_text())
    assert (result["num_tasks"], result["num_pools"], result["num_different_pools"]) == (2, 3, 2)
    assert result["candidates"] == {"fewest": 4, "mean": 6.7, "most": 8}
    assert [entry["num_pools"] for entry in result["sizes"].values()] == [3, 2]
    words = (tmp_path / "ideas.md").read_text()
    assert "1 pools have no more than 5 candidates, and are left out there" in words
    assert words == capsys.readouterr().out
    assert main([f"--candidates={file}", "--sizes", "8", f"--results={tmp_path}"]) == 2
    assert "no pool has more than 8 candidates" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["[]", '{"a": ["x"]}', '{"a": {"Data": [1]}}', "{"])
def test_a_file_that_holds_no_candidates_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "own.json").write_text(content)
    with pytest.raises(ValueError, match=r"own.json is not a file of candidates"):
        read_candidates(tmp_path / "own.json")
