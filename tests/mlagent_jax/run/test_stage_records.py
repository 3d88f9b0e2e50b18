"""The settings that a stage's output depends on."""

from pathlib import Path

import pytest

from mlagent_jax.configuration.loading import load_config, to_dict
from mlagent_jax.run.stage_records import StageRecords, fingerprint
from mlagent_jax.stages import load_stages
from rollout.storage.run_layout import RunLayout


def fingerprint_of(folder: Path, *settings: str, stage: str = "sft") -> str:
    config = load_config(None, ["sft.optimizer=adamw", *settings])
    return fingerprint(StageRecords(RunLayout(folder), load_stages(), to_dict(config)).inputs(stage))


@pytest.mark.parametrize("setting", ["adapter.alpha=8", "adapter.targets=mlp"])
def test_keys_of_an_adapter_count_only_if_there_is_one(setting: str, tmp_path: Path) -> None:
    assert fingerprint_of(tmp_path, setting) == fingerprint_of(tmp_path)
    with_adapter = fingerprint_of(tmp_path, "adapter.rank=8")
    assert with_adapter != fingerprint_of(tmp_path)
    assert fingerprint_of(tmp_path, "adapter.rank=8", setting) != with_adapter


def test_only_the_stage_that_begins_an_adapter_depends_on_its_keys(tmp_path: Path) -> None:
    later = ("adapter.rank=8", "adapter.first_stage=ppo")
    assert fingerprint_of(tmp_path, *later) == fingerprint_of(tmp_path)
    of_ppo = fingerprint_of(tmp_path, *later, stage="ppo")
    assert of_ppo != fingerprint_of(tmp_path, stage="ppo")
    assert of_ppo != fingerprint_of(tmp_path, *later, "adapter.alpha=8", stage="ppo")
    assert fingerprint_of(tmp_path, "adapter.rank=8", stage="ppo") == fingerprint_of(tmp_path, stage="ppo")
