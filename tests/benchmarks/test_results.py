"""The committed results of benchmarks name the commit of the code that they measured."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
MIN_COMMITS = 500  # of a whole clone
MODULE = re.compile(r"python -m (benchmarks\.\w+)")


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(("git", "-C", ROOT, *arguments), capture_output=True, text=True, timeout=60)


@pytest.fixture(autouse=True, scope="module")
def history() -> None:
    """Skips the tests in a copy of the files or a shallow clone, which lacks the first commits."""
    if int(git("rev-list", "--count", "HEAD").stdout or 0) < MIN_COMMITS:
        pytest.skip("needs the history of a whole clone")


def records(value: object) -> Iterator[dict]:
    """Yield the parts of a result that name a commit."""
    if isinstance(value, dict):
        if "commit" in value:
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from records(each)


def missing_code(record: dict) -> str:
    """Return what is wrong with the commit of a record, empty if the code that it measured can be looked up."""
    commit = record["commit"]
    if commit is None or "+" in commit:
        return f"it measured edited code ({commit})"
    if git("merge-base", "--is-ancestor", commit, "HEAD").returncode:
        return f"commit {commit} is not in the history"
    module = MODULE.search(str(record.get("command", "")))
    if module is None:
        return ""
    path = module[1].replace(".", "/") + ".py"
    return f"{commit} lacks {path}" if git("cat-file", "-e", f"{commit}:{path}").returncode else ""


UNKNOWN = pytest.mark.xfail(strict=True, reason="its code is not in the history; to be measured again")
TO_MEASURE = {
    "acting/acting.json",
    "canary_noise/canary_noise.json",
    "coder/coder.json",
    "logprob_noise/logprob_noise.json",
    "peers/peers.jsonl",
    "ppo/quickstart.json",
    "sft_throughput/smollm2-float32.json",
    "weight_transfer/weight_transfer.json",
}
FILES = sorted(str(path.relative_to(RESULTS)) for path in RESULTS.rglob("*.json*"))


@pytest.mark.parametrize("name", [pytest.param(name, marks=UNKNOWN if name in TO_MEASURE else ()) for name in FILES])
def test_result_measured_code_that_is_in_the_history(name):
    text = (RESULTS / name).read_text()
    values = [json.loads(text)] if name.endswith(".json") else [json.loads(line) for line in text.splitlines()]
    assert [wrong for each in records(values) if (wrong := missing_code(each))] == []


def test_commits_that_are_edited_or_unknown_or_lack_the_benchmark_are_found():
    head = git("rev-parse", "HEAD").stdout.strip()
    assert missing_code({"commit": head, "command": "python -m benchmarks.claims --seeds 3"}) == ""
    assert "edited" in missing_code({"commit": f"{head}+changes"})
    assert "not in the history" in missing_code({"commit": "0" * 40})
    assert "lacks benchmarks/nothing.py" in missing_code({"commit": head, "command": "python -m benchmarks.nothing"})
