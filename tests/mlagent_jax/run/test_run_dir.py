"""A stage is skipped, gone on with or redone by what is in the run directory and what it was made from."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlagent_jax.configuration.loading import load_config, to_dict
from mlagent_jax.configuration.schema import Config, ConfigError
from mlagent_jax.run.run_dir import BY_NAME, STAGES, RunDir
from rollout.storage.atomic_write import write_text
from tasks.registry import CATALOG

COLLECT, SFT, PPO = BY_NAME["collect"], BY_NAME["sft"], BY_NAME["ppo"]


def do(run_dir: RunDir, name: str, config: Config) -> str:
    """Does a stage, with a file for each of its outputs; returns what it began from."""
    stage = BY_NAME[name]
    words = run_dir.begin(stage, config)
    for output in stage.outputs:
        write_text(run_dir.path(output), name)
    run_dir.finish(stage, config, {"made": 1}, seconds=2.0)
    return words


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    """A run directory in which collect, sft and ppo are done with the quickstart's settings."""
    made = RunDir(tmp_path)
    for name in ("collect", "sft", "ppo"):
        assert do(made, name, load_config()) == ""
    return made


def test_finished_stage_is_done_and_its_figures_are_kept(run_dir: RunDir) -> None:
    assert all(run_dir.is_done(stage, load_config()) for stage in (COLLECT, SFT, PPO))
    record = run_dir.record("sft")
    assert record is not None and record["figures"] == {"made": 1} and record["seconds"] == 2.0


def test_changed_setting_redoes_the_stage_that_reads_it_and_those_after(run_dir: RunDir) -> None:
    changed = load_config(None, ["sft.learning_rate=0.001"])
    assert run_dir.is_done(COLLECT, changed)
    assert not run_dir.is_done(SFT, changed)
    assert not run_dir.is_done(PPO, changed)
    assert run_dir.changed(SFT, changed) == ["sft.learning_rate"]


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
    assert all(run_dir.is_done(stage, changed) for stage in (COLLECT, SFT, PPO))


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
    assert run_dir.is_done(COLLECT, moved)
    (own / "task.yaml").write_text(stated.replace("m_best: 15.2481", "m_best: 15.0"))
    assert not run_dir.is_done(COLLECT, config)
    assert run_dir.changed(COLLECT, config) == ["the task my_houses"]


def test_stage_made_anew_redoes_those_after_it(run_dir: RunDir) -> None:
    run_dir.path("stages", "sft.json").unlink()
    do(run_dir, "sft", load_config())
    assert not run_dir.is_done(PPO, load_config())
    assert run_dir.changed(PPO, load_config()) == ["the output of sft"]


def test_missing_output_redoes_the_stage(run_dir: RunDir) -> None:
    run_dir.path("tokenizer").unlink()
    assert not run_dir.is_done(SFT, load_config())


def test_interrupted_stage_goes_on_from_its_partial_output(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    assert run_dir.begin(COLLECT, load_config()) == ""
    run_dir.path("trajectories").mkdir()
    write_text(run_dir.path("trajectories", "journal"), "half")
    assert not run_dir.is_done(COLLECT, load_config())
    assert run_dir.begin(COLLECT, load_config()) == "going on where it stopped"
    assert run_dir.path("trajectories", "journal").read_text() == "half"


def test_output_of_other_inputs_is_set_aside_not_mixed_in_or_lost(run_dir: RunDir) -> None:
    changed = load_config(None, ["sft.batch_size=4"])
    words = do(run_dir, "sft", changed)
    assert "sft.batch_size" in words
    (aside,) = run_dir.path("replaced").iterdir()
    assert str(aside) in words
    assert (aside / "sft").read_text() == "sft"
    assert run_dir.is_done(SFT, changed)


def test_redone_stage_is_not_done_until_it_ends(run_dir: RunDir) -> None:
    changed = load_config(None, ["sft.batch_size=4"])
    run_dir.begin(SFT, changed)
    assert not run_dir.is_done(SFT, changed)
    assert not run_dir.is_done(SFT, load_config())


def test_stage_alone_needs_those_before_it(run_dir: RunDir) -> None:
    run_dir.require(PPO, load_config())
    with pytest.raises(ConfigError, match=r"other inputs \(sft\.batch_size\); run stage=sft first"):
        run_dir.require(PPO, load_config(None, ["sft.batch_size=4"]))
    with pytest.raises(ConfigError, match="output of collect, which is not finished; run stage=collect first"):
        RunDir(run_dir.path("other")).require(SFT, load_config())


def test_damaged_record_is_one_line_with_a_remedy(run_dir: RunDir) -> None:
    run_dir.path("stages", "sft.json").write_text("{")
    with pytest.raises(ConfigError, match=r"sft\.json is not JSON .* delete it"):
        run_dir.is_done(SFT, load_config())


def test_every_setting_a_stage_depends_on_exists() -> None:
    for stage in STAGES:
        assert RunDir(Path("nowhere")).inputs(stage, load_config())
    decisive = {key.partition(".")[0] for stage in STAGES for key in stage.settings}
    # Where and how fast things run decides nothing about what comes out.
    assert set(to_dict(load_config())) - decisive == {"run_dir", "mirror", "executor", "mesh"}


def test_second_run_in_one_directory_is_refused_with_the_holder(tmp_path: Path) -> None:
    hold = f"""
from pathlib import Path; from mlagent_jax.run.run_dir import RunDir
with RunDir(Path({str(tmp_path)!r})).lock():
    print("held", flush=True); input()
"""
    with subprocess.Popen((sys.executable, "-c", hold), stdin=-1, stdout=-1, text=True) as holder:
        assert holder.stdout is not None and holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=rf"in use by process {holder.pid};.*run_dir="), RunDir(tmp_path).lock():
            pass
        holder.kill()
        holder.wait()
        with RunDir(tmp_path).lock():
            pass


def test_text_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a.json", "new \udcff")
    assert (tmp_path / "a.json").read_text() == "old"


def test_record_is_json(run_dir: RunDir) -> None:
    record = json.loads(run_dir.path("stages", "ppo.json").read_text())
    assert record["inputs"]["ppo.num_updates"] == load_config().ppo.num_updates
