"""A stage is skipped, resumed or run again, by what is in the run directory and what it was made from."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlagent_jax.configuration.loading import load_config, to_dict
from mlagent_jax.configuration.schema import Config, ConfigError
from mlagent_jax.run.run_dir import RunDir
from mlagent_jax.run.stage_records import SCHEMA, StageRecords
from mlagent_jax.stages import load_stages
from rollout.storage.atomic_write import write_text
from tasks.registry import CATALOG

STAGES = load_stages()
OUTPUTS = {stage.name: stage.outputs for stage in STAGES}


def records(run_dir: RunDir, config: Config | None = None) -> StageRecords:
    return StageRecords(run_dir, STAGES, to_dict(config or load_config()))


def do(run_dir: RunDir, name: str, config: Config) -> str:
    """Does a stage, with a file for each of its outputs; returns what it began from."""
    note = records(run_dir, config).begin(name)
    for output in OUTPUTS[name]:
        write_text(run_dir.path(output), name)
    records(run_dir, config).finish(name, {"made": 1}, seconds=2.0)
    return note


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    """A run directory in which collect, sft and ppo are done with the quickstart's settings."""
    made = RunDir(tmp_path)
    for name in ("collect", "sft", "ppo"):
        assert do(made, name, load_config()) == ""
    return made


def test_finished_stage_is_done_and_its_figures_are_kept(run_dir: RunDir) -> None:
    assert all(records(run_dir).is_done(name) for name in ("collect", "sft", "ppo"))
    record = records(run_dir).record("sft")
    assert record is not None and record["figures"] == {"made": 1} and record["seconds"] == 2.0


def test_changed_setting_redoes_the_stage_that_reads_it_and_those_after(run_dir: RunDir) -> None:
    changed = load_config(None, ["sft.learning_rate=0.001"])
    assert records(run_dir, changed).is_done("collect")
    assert not records(run_dir, changed).is_done("sft")
    assert not records(run_dir, changed).is_done("ppo")
    assert records(run_dir, changed).changed("sft") == ["sft.learning_rate"]


def test_setting_that_no_output_depends_on_redoes_nothing(run_dir: RunDir) -> None:
    changed = load_config(
        None,
        [
            "executor.slots=1",
            "server.port=8123",
            "tasks.held_out=[]",
            "expert.budget_tokens=5",
            "coder.max_concurrent=3",
        ]
        + ["expert.api_key_env=KEY", "coder.base_url=http://elsewhere/v1"],
    )
    assert all(records(run_dir, changed).is_done(name) for name in ("collect", "sft", "ppo"))


@pytest.mark.parametrize("stage", ["collect", "sft", "ppo"])
@pytest.mark.parametrize("key", ["prompt.system=full", "prompt.show_script=true", "observation.script_lines=50"])
def test_another_prompt_redoes_every_stage_that_renders_one(run_dir: RunDir, stage: str, key: str) -> None:
    changed = records(run_dir, load_config(None, [key])).changed(stage)
    text = [] if key == "prompt.show_script=true" else ["the text of the system message"]
    stated = [] if (stage, key) == ("sft", "observation.script_lines=50") else [key.partition("=")[0]]
    assert [name for name in changed if not name.startswith("the output of")] == stated + text


def test_a_system_message_whose_text_changed_with_the_code_redoes_every_stage_that_renders_it(
    run_dir: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert do(run_dir, "evaluate", load_config()) == "" and do(run_dir, "export", load_config()) == ""
    assert all(records(run_dir).is_done(stage.name) for stage in STAGES)
    monkeypatch.setattr("tasks.system_text.BRIEF", "Improve the script. {actions}")
    changed = {stage.name: records(run_dir).changed(stage.name) for stage in STAGES}
    assert changed == {**dict.fromkeys(OUTPUTS, ["the text of the system message"]), "export": []}
    assert not any(records(run_dir).is_done(stage.name) for stage in STAGES)


def test_a_task_that_says_something_else_redoes_the_stages_that_saw_it(tmp_path: Path) -> None:
    own = tmp_path / "own" / "my_houses"
    shutil.copytree(CATALOG / "house_price", own, ignore=shutil.ignore_patterns("__pycache__"))
    stated = (own / "task.yaml").read_text().replace("name: house_price", "name: my_houses")
    (own / "task.yaml").write_text(stated)
    config = load_config(None, ["tasks.held_in=[my_houses]", "tasks.held_out=[]", f"tasks.paths=[{own}]"])
    run_dir = RunDir(tmp_path / "run")
    run_dir.root.mkdir()
    do(run_dir, "collect", config)
    (own / "task.yaml").write_text(stated + "# a remark\n")
    moved = load_config(None, [*("tasks.held_in=[my_houses]", "tasks.held_out=[]"), f"tasks.paths=[{own.parent}]"])
    assert records(run_dir, moved).is_done("collect")
    (own / "task.yaml").write_text(stated.replace("m_best: 15.2481", "m_best: 15.0"))
    assert not records(run_dir, config).is_done("collect")
    assert records(run_dir, config).changed("collect") == ["the task my_houses"]


def test_stage_made_anew_redoes_those_after_it(run_dir: RunDir) -> None:
    run_dir.path("stages", "sft.json").unlink()
    do(run_dir, "sft", load_config())
    assert not records(run_dir).is_done("ppo")
    assert records(run_dir).changed("ppo") == ["the output of sft"]


def test_missing_output_redoes_the_stage(run_dir: RunDir) -> None:
    run_dir.path("tokenizer").unlink()
    assert not records(run_dir).is_done("sft")


def test_interrupted_stage_goes_on_from_its_partial_output(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    assert records(run_dir).begin("collect") == ""
    run_dir.path("trajectories").mkdir()
    write_text(run_dir.path("trajectories", "journal"), "half")
    assert not records(run_dir).is_done("collect")
    assert records(run_dir).begin("collect") == "going on where it stopped"
    assert run_dir.path("trajectories", "journal").read_text() == "half"


def test_output_of_other_inputs_is_set_aside_not_mixed_in_or_lost(run_dir: RunDir) -> None:
    changed = load_config(None, ["sft.batch_size=4"])
    words = do(run_dir, "sft", changed)
    assert "sft.batch_size" in words
    (aside,) = run_dir.path("replaced").iterdir()
    assert str(aside) in words
    assert (aside / "sft").read_text() == "sft"
    assert records(run_dir, changed).is_done("sft")


def test_redone_stage_is_not_done_until_it_ends(run_dir: RunDir) -> None:
    changed = load_config(None, ["sft.batch_size=4"])
    records(run_dir, changed).begin("sft")
    assert not records(run_dir, changed).is_done("sft")
    assert not records(run_dir).is_done("sft")


def test_stage_alone_needs_those_before_it(run_dir: RunDir) -> None:
    records(run_dir).require_earlier("ppo")
    with pytest.raises(ConfigError, match=r"other inputs \(sft\.batch_size\); run stage=sft first"):
        records(run_dir, load_config(None, ["sft.batch_size=4"])).require_earlier("ppo")
    with pytest.raises(ConfigError, match="output of collect, which is not finished; run stage=collect first"):
        records(RunDir(run_dir.path("other"))).require_earlier("sft")


def test_every_setting_a_stage_depends_on_exists() -> None:
    for stage in STAGES:
        assert records(RunDir(Path("nowhere"))).inputs(stage.name)
    decisive = {key.partition(".")[0] for stage in STAGES for key in stage.settings}
    # Where and how fast things run decides nothing about what comes out.
    assert set(to_dict(load_config())) - decisive == {"run_dir", "mirror", "executor", "mesh", "trackers", "trainer"}


def test_second_run_in_one_directory_is_refused_with_the_holder(tmp_path: Path) -> None:
    hold = f"""
from pathlib import Path; from mlagent_jax.run.run_dir import RunDir
with RunDir(Path({str(tmp_path)!r})).lock():
    print("held", flush=True); input()
"""
    with subprocess.Popen((sys.executable, "-c", hold), stdin=-1, stdout=-1, text=True) as holder:
        assert holder.stdout is not None and holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=rf"in use by process {holder.pid};.*run_dir="), RunDir(tmp_path).lock():
            pass
        holder.kill()
        holder.wait()
        with RunDir(tmp_path).lock():
            pass


@pytest.mark.parametrize("file", ["sft.json", "ppo.started"])
@pytest.mark.parametrize("schema", [None, SCHEMA - 1, SCHEMA + 1])
def test_directory_of_another_version_is_one_error_with_a_remedy(
    run_dir: RunDir, file: str, schema: int | None
) -> None:
    path = run_dir.path("stages", file)
    record = json.loads(path.read_text())
    assert record["schema"] == SCHEMA
    del record["schema"], record["sha256"]
    path.write_text(json.dumps(record if schema is None else {**record, "schema": schema}))
    expected = f"another version of mlagent_jax: {file} has schema {schema}, expected {SCHEMA}; start a new run_dir"
    with pytest.raises(ConfigError, match=expected):
        records(run_dir)


@pytest.mark.parametrize("file", ["sft.json", "ppo.started"])
@pytest.mark.parametrize(
    "content",
    [b"", b"[1]", b"5", b'{"schema": 2}', b"\xff\xfe", b"[" * 10**5, lambda old: old[:-9], lambda old: old[9:]]
    + [lambda old: old.replace(b'"seconds": 2.0', b'"seconds": 9.0').replace(b'"inputs"', b'"inputz"')],
)
def test_a_damaged_record_is_one_line_with_a_remedy_that_works(
    run_dir: RunDir, file: str, content: bytes | Callable[[bytes], bytes]
) -> None:
    path = run_dir.path("stages", file)
    path.write_bytes(content if isinstance(content, bytes) else content(path.read_bytes()))
    with pytest.raises(ConfigError, match=r"is damaged; remove it with `rm .*` to run the stage \w+ again") as error:
        records(run_dir)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    path.unlink()
    do(run_dir, path.stem, load_config())
    assert records(run_dir).is_done(path.stem)


def test_a_record_of_an_earlier_version_has_no_digest_and_is_read(run_dir: RunDir) -> None:
    path = run_dir.path("stages/sft.json")
    record = json.loads(path.read_text())
    del record["sha256"]
    path.write_text(json.dumps(record))
    assert records(run_dir).is_done("sft")


def test_text_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a.json", "new \udcff")
    assert (tmp_path / "a.json").read_text() == "old"


def test_record_is_json(run_dir: RunDir) -> None:
    record = json.loads(run_dir.path("stages", "ppo.json").read_text())
    assert record["inputs"]["ppo.num_updates"] == load_config().ppo.num_updates
