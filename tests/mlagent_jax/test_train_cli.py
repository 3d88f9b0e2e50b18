"""The command line: what it says and with which code it ends, whatever goes wrong."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from mlagent_jax import pipeline
from mlagent_jax.configuration.key_help import USEFUL_KEYS, all_keys
from mlagent_jax.configuration.loading import keys, load_config, to_dict
from mlagent_jax.configuration.schema import Config
from mlagent_jax.gpus.assignment import Assignment
from mlagent_jax.model.build import model_config
from mlagent_jax.model.hf import hf_shapes, save_tensors
from mlagent_jax.multihost.preemption import Preempted, defer_sigterm
from mlagent_jax.run.run_dir import RunDir
from mlagent_jax.run.stage_records import StageRecords
from mlagent_jax.stages import STAGE_NAMES, load_stages
from mlagent_jax.tracking.progress import Reporter
from mlagent_jax.tracking.services.service import SERVICES, Entry
from mlagent_jax.train import main, parse_arguments
from rollout.errors import ServerError
from rollout.tokenizer.chat import train_tokenizer


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Returns the outcome of the real command, started in `cwd`."""
    root = Path(__file__).parents[2]
    command = (sys.executable, "-m", "mlagent_jax.train", *arguments)
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture
def ending(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Replaces the work of the stages, so that a test can end it as it likes."""

    def end_with(action: Callable[[], None]) -> None:
        def run_stages(config: Config, names: Sequence[str], reporter: Reporter, assignment: Assignment) -> None:
            action()

        monkeypatch.setattr(pipeline, "run_stages", run_stages)

    return end_with


def raiser(error: BaseException) -> Callable[[], None]:
    def action() -> None:
        raise error

    return action


def test_unknown_key_is_one_line_and_touches_nothing(tmp_path: Path) -> None:
    done = run("ppo.num_update=3", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: unknown key ppo.num_update; did you mean ppo.num_updates?\n"
    assert not list(tmp_path.iterdir())


def test_stage_before_its_time_is_one_line(tmp_path: Path) -> None:
    done = run("stage=sft", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "run stage=collect first" in done.stderr
    assert "Traceback" in (tmp_path / "runs/quickstart/log.txt").read_text()  # for us, not for the user


def test_help_names_stages_exit_codes_and_keys_that_exist(tmp_path: Path) -> None:
    done = run("--help", cwd=tmp_path)
    assert done.returncode == 0 and not done.stderr
    assert all(name in done.stdout for name in (*STAGE_NAMES, *map(str, (2, 3, 75, 130)), "--help-keys"))
    assert set(USEFUL_KEYS) <= {key.name for key in keys()}


def test_help_keys_lists_every_key_with_default_and_meaning(tmp_path: Path) -> None:
    done = run("--help-keys", cwd=tmp_path)
    assert done.returncode == 0 and not done.stderr
    assert all(f"  {key.name}={key.default}\n" in done.stdout for key in keys())


def test_help_keys_keeps_to_the_width_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    meanings = [line for line in all_keys().splitlines() if line.startswith("      ")]
    assert max(map(len, meanings)) <= 70


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["stage=train"], "no such stage; use all, collect, sft"),
        (["--ppo.num_updates", "3"], "give settings as key.sub=value"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: No such file or directory"),
        (["--config"], "expected one argument"),
        (["sft.batch_size=two"], "sft.batch_size: got two"),
    ],
)
def test_bad_command_line_is_one_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_settings_may_stand_on_both_sides_of_the_config(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("seed: 5\n")
    config, stages = parse_arguments(["ppo.clip=0.1", "--config", str(tmp_path / "c.yaml"), "stage=ppo", "run_dir=x"])
    assert (config.seed, config.ppo.clip, config.run_dir, stages) == (5, 0.1, "x", ("ppo",))


def test_all_stages_run_in_order_by_default() -> None:
    assert parse_arguments([])[1] == parse_arguments(["stage=all"])[1] == STAGE_NAMES


def test_directory_in_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunDir(tmp_path).lock():
        assert main(["stage=sft", f"run_dir={tmp_path}"]) == 2
    assert f"in use by process {os.getpid()}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 2, "the disk is full (runs/x); free some space"),
        (PermissionError(errno.EACCES, "Permission denied", "runs/x"), 2, "runs/x: Permission denied"),
        (ServerError("no answer in 240 s"), 3, "ServerError: no answer in 240 s; details in runs/x/log.txt"),
        (KeyboardInterrupt(), 130, "interrupted; run the same command to go on"),
        (Preempted(), 75, "ended by SIGTERM, all work is saved; run the same command to go on"),
    ],
)
def test_failure_is_one_line_and_its_own_code(
    error: BaseException,
    code: int,
    words: str,
    ending: Callable[[Callable[[], None]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    ending(raiser(error))
    assert main(["run_dir=runs/x"]) == code
    said = capsys.readouterr().err.strip()
    assert words in said and "\n" not in said


def test_missing_model_directory_is_one_line_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"run_dir={tmp_path}", f"model.path={tmp_path / 'nowhere'}"]) == 2
    said = capsys.readouterr().err
    assert "nowhere/config.json: no such file; expected a Hugging Face model directory" in said
    assert said.count("\n") == 1 and not (tmp_path / "data").exists()


def test_checkpoint_of_another_size_is_found_out_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = model_config(load_config().model, 512, 2, 1024)
    (tmp_path / "config.json").write_text(json.dumps(shape.to_hf("float32")))
    assert main([f"run_dir={tmp_path / 'run'}", f"model.path={tmp_path}", "model.num_layers=3"]) == 2
    assert "model.num_layers=3 does not fit the checkpoint" in capsys.readouterr().err


def test_checkpoint_without_weights_or_tokenizer_is_found_out_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = model_config(load_config().model, 512, 2, 1024)
    (tmp_path / "config.json").write_text(json.dumps(shape.to_hf("float32")))

    def said() -> str:
        assert main([f"run_dir={tmp_path / 'run'}", f"model.path={tmp_path}"]) == 2
        text = capsys.readouterr().err
        assert text.count("\n") == 1 and not (tmp_path / "run" / "data").exists()
        return text

    assert "model.safetensors: no such file; expected the model's weights" in said()
    (tmp_path / "model.safetensors").write_bytes(b"\x08")
    assert "model.safetensors: not a readable safetensors file: it has only 1 bytes; fetch it again" in said()
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    assert "weights do not fit the config: model.embed_tokens.weight: missing" in said()
    tensors = ((name, np.zeros(size, np.float32)) for name, size in hf_shapes(shape).items())
    save_tensors(shape, tensors, tmp_path, "float32")
    assert "tokenizer.json: no such file; model.path needs the tokenizer" in said()
    tokenizer = train_tokenizer(["a text"], tmp_path, 300)
    added = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(added | {"decoder": None}))
    assert "tokenizer.json: text does not come back from its tokens as it was" in said()
    tokenizer.tokenizer.add_tokens([f"<{number}>" for number in range(512)])
    tokenizer.tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert f"512 embedding rows for a tokenizer of {tokenizer.vocab_size} tokens; use the tokenizer" in said()


def test_finished_run_has_nothing_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = RunDir(tmp_path)
    records = StageRecords(run_dir, load_stages(), to_dict(load_config()))
    for stage in load_stages():
        records.begin(stage.name)
        for output in stage.outputs:
            run_dir.path(output).mkdir()
        records.finish(stage.name, {}, seconds=1.0)
    assert main([f"run_dir={tmp_path}"]) == 0
    assert "everything is done" in capsys.readouterr().err
    assert not (tmp_path / "tmp").exists() and not (tmp_path / "data").exists()


def test_server_that_does_not_answer_is_found_out_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"run_dir={tmp_path}", "server.address=http://127.0.0.1:9"]) == 3
    said = capsys.readouterr().err
    assert "no policy server answers at server.address=http://127.0.0.1:9; start one" in said
    assert said.count("\n") == 1 and not (tmp_path / "data").exists()


def test_missing_package_of_a_tracker_is_found_out_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SERVICES, "wandb", Entry("wandb_service", "WeightsAndBiases", "no_such_package"))
    assert main([f"run_dir={tmp_path}", "stage=collect", "trackers=[wandb]"]) == 2
    said = capsys.readouterr().err
    assert "the tracker wandb needs the package no_such_package; install mlagent-jax[wandb]" in said
    assert said.count("\n") == 1 and not (tmp_path / "data").exists()


def test_port_in_use_is_found_out_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main([f"run_dir={tmp_path}", f"server.port={port}"]) == 2
    said = capsys.readouterr().err
    assert f"cannot serve on port {port} of 127.0.0.1" in said
    assert said.count("\n") == 1 and not (tmp_path / "data").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGHUP, 130)])
def test_signal_is_an_interrupt_once_and_cleanup_is_not_cut_short(
    number: signal.Signals, code: int, ending: Callable[[Callable[[], None]], None]
) -> None:
    cleaned = []

    def action() -> None:
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)  # an impatient second Ctrl-C
            cleaned.append(True)

    before = signal.getsignal(number)
    ending(action)
    assert main([]) == code
    assert cleaned and signal.getsignal(number) == before


def test_sigterm_waits_for_work_that_heeds_it_and_a_second_one_does_not(
    ending: Callable[[Callable[[], None]], None],
) -> None:
    steps = []

    def action() -> None:
        with defer_sigterm() as is_preempted:
            steps.append(is_preempted())
            signal.raise_signal(signal.SIGTERM)
            steps.append(is_preempted())
            signal.raise_signal(signal.SIGTERM)
            steps.append(None)

    ending(action)
    assert main([]) == 75 and steps == [False, True]


def test_sigterm_that_nobody_asked_about_any_more_ends_the_run_too(
    ending: Callable[[Callable[[], None]], None],
) -> None:
    def action() -> None:
        with defer_sigterm():
            signal.raise_signal(signal.SIGTERM)

    ending(action)
    assert main([]) == 75


def test_error_of_a_library_is_a_bug_and_keeps_its_traceback(ending: Callable[[Callable[[], None]], None]) -> None:
    ending(lambda: json.loads("{"))
    with pytest.raises(json.JSONDecodeError):
        main([])
