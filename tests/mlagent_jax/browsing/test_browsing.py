"""The list of runs and their series are those of the files, and the server gives nothing else."""

import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlagent_jax.browsing.command import main
from mlagent_jax.browsing.listing import describe, find_runs
from mlagent_jax.browsing.series import RunSeries
from mlagent_jax.browsing.server import RunsServer
from mlagent_jax.configuration.loading import load_config, to_yaml
from mlagent_jax.tracking.jsonl import JsonlTracker, drop_stages
from rollout.storage.folder_lock import locked


def write_run(root: Path, updates: int = 3, finished: tuple[str, ...] = ("collect", "sft")) -> Path:
    """Write the files of a run that is in PPO, or as far as `finished` says."""
    (root / "stages").mkdir(parents=True)
    (root / "config.yaml").write_text(to_yaml(load_config(None, ["ppo.num_updates=8"])))
    for name in (*finished, "ppo"):
        (root / "stages" / f"{name}.started").write_text("{}")
    for name in finished:
        (root / "stages" / f"{name}.json").write_text("{}")
    with JsonlTracker(root / "metrics.jsonl") as tracker:
        tracker.log({"sft/step": 1, "sft/loss": 0.5})
        for update in range(updates):
            tracker.log({"ppo/update": update, "reward/mean": update / 4})
    return root


ALL = ("collect", "sft", "ppo", "evaluate", "export")


def test_runs_are_found_below_a_folder_and_described_by_their_files(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    done = write_run(tmp_path / "deep" / "er" / "b", finished=ALL)
    (done / "report.html").write_text("<p>b")
    gains = {"held_in_gain": {"mean": 0.25}, "held_out_gain": {"mean": -0.5}}
    (done / "summary.json").write_text(json.dumps({"evaluation": {"ppo": gains, "sft": {}}}))
    write_run(tmp_path / "a" / "data" / "hidden")  # inside a run
    found = [describe(root, tmp_path) for root in find_runs(tmp_path)]
    assert [run.name for run in found] == ["a", "deep/er/b"]
    first, second = found
    assert (first.state, first.stage, first.progress, first.reward, first.gains) == ("stopped", "ppo", "3/8", 0.5, {})
    assert (second.state, second.stage, second.progress) == ("done", "export", "")
    assert second.gains == {"ppo/held_in": 0.25, "ppo/held_out": -0.5} and second.pages == ("report.html",)
    with locked(first.root, "it is in use", "wait"):
        assert describe(first.root, tmp_path).state == "running"
    assert describe(first.root, first.root).name == "a"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"evaluation": []}', '{"evaluation": {"ppo": 1}}', "\0\0"])
def test_damaged_files_of_a_run_say_nothing(tmp_path: Path, content: str) -> None:
    root = write_run(tmp_path / "a")
    for name in ("summary.json", "metrics.jsonl", "config.yaml"):
        (root / name).write_text(content + "\n")
    run = describe(root, tmp_path)
    assert (run.stage, run.progress, run.reward, run.gains) == ("ppo", "", None, {})


def test_series_grow_with_the_file_and_begin_anew_when_it_is_replaced(tmp_path: Path) -> None:
    root = write_run(tmp_path / "a")
    series = RunSeries(root / "metrics.jsonl")
    first = series.points("reward/mean", 0, 0)
    assert (first["x"], first["y"], first["next"], first["is_new"]) == ([0, 1, 2], [0.0, 0.25, 0.5], 4, True)
    with JsonlTracker(root / "metrics.jsonl") as tracker:  # as a run that resumes, which writes the file anew
        tracker.rewind("ppo/update", 1)
        tracker.log({"ppo/update": 2, "reward/mean": 7.0})
        again = series.points("reward/mean", first["version"], first["next"])
        assert (again["is_new"], again["y"]) == (True, [0.0, 0.25, 7.0])
        tracker.log({"ppo/update": 3, "reward/mean": 8.0})
        more = series.points("reward/mean", again["version"], again["next"])
        assert (more["is_new"], more["x"], more["y"], more["next"]) == (False, [3], [8.0], 5)
    drop_stages(root / "metrics.jsonl", ("ppo",), root / "old.jsonl")
    assert series.points("reward/mean", more["version"], more["next"])["y"] == []
    assert series.names() == {"sft/step": 1, "sft/loss": 1, "time/run_seconds": 1}
    series.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunsServer]:
    write_run(tmp_path / "runs" / "a & b")
    (tmp_path / "runs" / "a & b" / "report.html").write_text("<p>the report")
    (tmp_path / "secret.txt").write_text("secret")
    with RunsServer(tmp_path / "runs", "127.0.0.1", 0) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def ask(server: RunsServer, path: str, host: str | None = None, method: str = "GET") -> tuple[int, Any]:
    request = urllib.request.Request(f"http://127.0.0.1:{server.server_address[1]}{path}", method=method)
    if host:
        request.add_header("Host", host)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            body = answer.read()
            return answer.status, json.loads(body) if "json" in answer.headers["Content-Type"] else body.decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_server_gives_runs_figures_and_pages(server: RunsServer) -> None:
    status, runs = ask(server, "/api/runs")
    assert (status, [run["name"] for run in runs]) == (200, ["a & b"]) and "root" not in runs[0]
    run = urllib.parse.quote("a & b")
    assert ask(server, f"/api/names?run={run}")[1]["reward/mean"] == 3
    assert ask(server, f"/api/points?run={run}&name=reward/mean&from=3&version=1")[1]["y"] == [0.5]
    assert ask(server, f"/page?run={run}&name=report.html") == (200, "<p>the report")
    for path in ("/", "/page.css", "/runs.css", "/chart.js", "/runs.js"):
        assert ask(server, path)[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/page?run=a+%26+b&name=../../secret.txt",
        "/page?run=a+%26+b&name=config.yaml",
        "/page?run=..&name=secret.txt",
        "/api/names?run=../..",
        "/api/points",
        "/api/other?run=a+%26+b",
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/runs.py",
    ],
)
def test_the_server_gives_nothing_else(server: RunsServer, path: str) -> None:
    status, said = ask(server, path)
    assert status == 404 and "secret" not in str(said)


def test_the_server_answers_only_requests_for_its_own_address(server: RunsServer) -> None:
    assert ask(server, "/api/runs", host="evil.example")[0] == 403
    assert ask(server, "/api/runs", host="localhost:1")[0] == 200
    assert ask(server, "/api/runs", method="POST")[0] == 501


def test_the_command_lists_runs_or_says_that_there_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none")]) == 2 and "there is no folder" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 2 and "there is no run in" in capsys.readouterr().err
    write_run(tmp_path / "first")
    assert main([str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "first" in said and "ppo 3/8" in said and "+0.50" in said
    with RunsServer(tmp_path, "127.0.0.1", 0) as taken:
        assert main(["serve", str(tmp_path), "--port", str(taken.server_address[1])]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and "port" in said, said
