"""Every tracking service shows what `metrics.jsonl` holds, each figure once, after a kill and a resume too."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlagent_jax.configuration.loading import load_config, to_yaml
from mlagent_jax.tracking.jsonl import JsonlTracker, drop_stages, read_metrics
from mlagent_jax.tracking.services.service import SERVICES
from rollout.storage.folder_lock import is_locked, locked
from rollout.storage.run_layout import RunLayout

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
PACKAGES = Path(sys.prefix) / "opt" / "trackers"
each_service = pytest.mark.parametrize("service", SERVICES)


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    if not PACKAGES.exists():
        pytest.skip("the packages of the services are not here: make trackers")


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory, packages: None) -> Path:
    """A store of MLflow, whose tables take six seconds to make."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    program = f"from mlflow import MlflowClient; MlflowClient('sqlite:///{file}').search_experiments()"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGES)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True, timeout=120)
    return file


@pytest.fixture
def layout(tmp_path: Path, empty_store: Path) -> RunLayout:
    """A run directory that has a configuration and no figures."""
    made = RunLayout(tmp_path / "my run")
    shutil.copy(empty_store, tmp_path)
    made.root.mkdir()
    made.config.write_text(to_yaml(load_config()))
    return made


def python(layout: RunLayout, *arguments: object, **more: str) -> "subprocess.CompletedProcess[str]":
    """Runs Python with the packages of the services, offline, with stores beside the run directory."""
    process = start(layout, *arguments, **more)
    said, errors = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, said, errors)


def start(layout: RunLayout, *arguments: object, **more: str) -> "subprocess.Popen[str]":
    beside = layout.root.parent
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(PACKAGES), str(HERE.parents[2])]),
        "WANDB_MODE": "offline",
        "MLFLOW_TRACKING_URI": f"sqlite:///{beside}/mlflow.db",
        "TRACKIO_DIR": str(beside / "trackio"),
        **more,
    }
    command = [sys.executable, *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, cwd=beside, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(layout: RunLayout, service: str, first: int, last: int, *how: str) -> "subprocess.CompletedProcess[str]":
    """Runs updates of a run, and waits until its follower has ended."""
    done = python(layout, HERE / "tracked_run.py", layout.root, service, first, last, *how)
    ends = time.monotonic() + 60
    while is_locked(layout.tracking / service):
        assert time.monotonic() < ends, "the follower outlives the run"
        time.sleep(0.1)
    return done


def shown(layout: RunLayout, service: str, identifier: str = "") -> list[tuple[str, int, float]]:
    """Returns the figures that the service has, with the steps of their stages, in order."""
    identifier = identifier or state(layout, service)["id"]
    done = python(layout, HERE / "shown_figures.py", service, layout.root, identifier)
    assert done.returncode == 0, done.stderr
    return [(name, step, value) for name, step, value in json.loads(done.stdout)]


def state(layout: RunLayout, service: str) -> dict[str, object]:
    return json.loads((layout.tracking / service / "state.json").read_text())


def expected(layout: RunLayout, service: str) -> list[tuple[str, int, float]]:
    """Returns the figures of `metrics.jsonl` as the service has them."""
    by_line = service in ("wandb", "trackio")
    found = []
    for index, line in enumerate(read_metrics(layout.metrics)):
        key = next((key for key in ("sft/step", "ppo/update") if key in line), None)
        step = index if by_line else int(line[key]) if key else 0
        found += [(name, step, value) for name, value in line.items() if by_line or name != key]
    return sorted(found)


def assert_shows_the_run(layout: RunLayout, service: str) -> None:
    found, wanted = shown(layout, service), expected(layout, service)
    assert [each[:2] for each in found] == [each[:2] for each in wanted]
    for (*_, value), (*_, right) in zip(found, wanted, strict=True):
        assert value == pytest.approx(right, rel=1e-6)  # TensorBoard's are float32


def of_learning(figures: list[tuple[str, int, float]]) -> list[tuple[str, int, float]]:
    return [each for each in figures if not each[0].startswith("time/")]


@each_service
def test_killed_and_resumed_run_shows_every_step_once(layout: RunLayout, service: str) -> None:
    assert run(layout, service, 0, 5, "kill").returncode == -9
    assert of_learning(shown(layout, service)) == of_learning(expected(layout, service))
    before = state(layout, service)["id"]
    done = run(layout, service, 3, 8)  # from a checkpoint after update 2
    assert done.returncode == 0, done.stderr
    assert state(layout, service)["id"] == before
    assert of_learning(shown(layout, service)) == of_learning(expected(layout, service))
    assert len(read_metrics(layout.metrics)) == 9


@each_service
def test_past_run_is_sent_whole_and_then_only_what_is_new(layout: RunLayout, service: str) -> None:
    with JsonlTracker(layout.metrics) as tracker:
        tracker.log({"collect/num_trajectories": 24, "collect/gain": 0.25})
        for step in range(1, 1203):  # more than one request
            tracker.log({"sft/step": step, "sft/loss": 1 / step})
        tracker.log({"ppo/update": 0, "reward/mean": -0.5})
    command = "-m", "mlagent_jax.track", layout.root, "--to", service
    done = python(layout, *command)
    assert (done.returncode, f"{service} has 1204 lines" in done.stdout) == (0, True), done.stderr
    assert_shows_the_run(layout, service)
    with JsonlTracker(layout.metrics) as tracker:
        tracker.log({"ppo/update": 1, "reward/mean": 0.5})
    assert python(layout, *command).returncode == 0
    assert_shows_the_run(layout, service)


@each_service
def test_run_with_a_replaced_stage_is_a_new_tracked_run(layout: RunLayout, service: str) -> None:
    assert run(layout, service, 0, 2).returncode == 0
    before = state(layout, service)["id"]
    old = shown(layout, service)
    assert drop_stages(layout.metrics, ("ppo",), layout.path("replaced", "ppo-1", "metrics.jsonl"))
    layout.tracking.rename(layout.path("replaced", "ppo-1", "tracking"))
    assert run(layout, service, 0, 1).returncode == 0
    assert_shows_the_run(layout, service)
    if service in ("mlflow", "trackio"):
        assert state(layout, service)["id"] != before
        assert shown(layout, service, str(before)) == old


@pytest.mark.parametrize("service", ["mlflow", "trackio", "wandb"])
def test_artifacts_of_a_finished_run_are_kept(layout: RunLayout, service: str) -> None:
    layout.report.write_text("<p>the report")
    layout.export.mkdir()
    (layout.export / "config.json").write_text('{"the": "export"}')
    assert run(layout, service, 0, 1).returncode == 0
    assert set(state(layout, service)["artifacts"]) == {"config.yaml", "metrics.jsonl", "report.html", "export"}  # type: ignore[arg-type]
    stores = [path for path in layout.root.parent.rglob("*") if path.is_file() and path.parent != layout.root]
    for content in ("<p>the report", '{"the": "export"}'):
        kept = [path for path in stores if path.parent != layout.export and content.encode() in path.read_bytes()]
        assert kept or service == "wandb", content
    if service == "wandb":
        staged = b"".join(path.read_bytes() for path in layout.tracking.rglob("*.wandb"))
        assert b"report.html" in staged and b"export" in staged


@pytest.mark.parametrize("service", ["tensorboard"])
def test_run_that_restarts_while_its_last_figures_are_sent_does_not_wait(layout: RunLayout, service: str) -> None:
    with locked(_made(layout.tracking / service), "held", "wait"):  # by the follower of a killed run
        began = time.monotonic()
        process = start(layout, HERE / "tracked_run.py", layout.root, service, 0, 3)
        while not layout.metrics.exists():
            assert time.monotonic() - began < 60 and process.poll() is None, "the run waits"
            time.sleep(0.1)
        time.sleep(3)
        assert not (layout.tracking / service / "state.json").exists()
    assert process.communicate(timeout=120) and process.returncode == 0
    assert_shows_the_run(layout, service)


def test_another_store_is_refused_instead_of_taken_for_the_same(layout: RunLayout) -> None:
    layout.metrics.write_text('{"ppo/update": 0.0}\n')
    command = "-m", "mlagent_jax.track", layout.root, "--to", "trackio"
    assert python(layout, *command).returncode == 0
    done = python(layout, *command, TRACKIO_DIR=str(layout.root.parent / "other"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "set that again, or send it anew after `rm -r " in done.stderr


def test_interrupted_run_is_not_marked_as_finished(layout: RunLayout) -> None:
    layout.metrics.write_text('{"ppo/update": 0.0}\n')
    layout.stages.mkdir()
    (layout.stages / "ppo.started").write_text("{}")
    command = "-m", "mlagent_jax.track", layout.root, "--to", "mlflow"
    assert python(layout, *command).returncode == 0 and state(layout, "mlflow")["artifacts"] == {}
    (layout.stages / "ppo.json").write_text("{}")
    assert python(layout, *command).returncode == 0
    assert set(state(layout, "mlflow")["artifacts"]) == {"config.yaml", "metrics.jsonl"}  # type: ignore[call-overload]


@pytest.mark.parametrize("content", ["{", "[]"])
def test_damaged_state_is_one_line_with_the_remedy(layout: RunLayout, content: str) -> None:
    layout.metrics.write_text('{"ppo/update": 0.0}\n')
    (_made(layout.tracking / "tensorboard") / "state.json").write_text(content)
    done = python(layout, "-m", "mlagent_jax.track", layout.root, "--to", "tensorboard")
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "state.json is damaged; send everything anew after `rm -r " in done.stderr


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_server_that_is_away_is_one_line_before_the_run_begins(layout: RunLayout) -> None:
    done = python(
        layout, HERE / "tracked_run.py", layout.root, "mlflow", 0, 1, MLFLOW_TRACKING_URI="http://127.0.0.1:9"
    )
    assert done.returncode == 1 and not layout.metrics.exists()
    last = done.stderr.strip().splitlines()[-1]
    assert "mlflow could not begin a tracked run: " in last and "or set trackers=[]" in last, last


def test_wandb_without_an_account_is_one_line(layout: RunLayout) -> None:
    layout.metrics.write_text('{"ppo/update": 0.0}\n')
    done = python(
        layout, "-m", "mlagent_jax.track", layout.root, "--to", "wandb", WANDB_MODE="online", HOME=str(layout.root)
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: wandb could not begin a tracked run: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
