"""Declarations of stages, estimators, trackers and actions match the code behind them."""

from typing import get_args, get_type_hints

import pytest

from mlagent_jax import stages
from mlagent_jax.configuration.schema import PPO, Config
from mlagent_jax.ppo.credit import CRITIC_FREE
from mlagent_jax.tracking.services.service import SERVICES
from tasks.action import ActionSpec


def test_every_advantage_that_can_be_configured_exists() -> None:
    assert set(get_args(get_type_hints(PPO)["advantage"])) == {"gae", *CRITIC_FREE}


def test_every_tracking_service_that_can_be_configured_exists() -> None:
    name, _ = get_args(get_type_hints(Config)["trackers"])
    assert set(get_args(name)) == set(SERVICES)


def test_a_stage_whose_name_is_not_that_of_its_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [stage.name for stage in stages.load_stages()] == list(stages.STAGE_NAMES)
    monkeypatch.setattr(stages.load_stages()[2], "name", "rl", raising=False)
    with pytest.raises(AssertionError, match="the stage of ppo.py is named 'rl'"):
        stages.load_stages()


def test_every_stage_that_renders_a_prompt_depends_on_it() -> None:
    for stage in stages.load_stages():
        renders = stage.acts or stage.name == "sft"
        assert ("prompt" in stage.settings, "observation" in stage.settings) == (renders, stage.acts), stage.name


def test_an_edit_without_an_instruction_is_refused() -> None:
    with pytest.raises(AssertionError, match=r"lacks the arguments \['edit_instruction', 'save_name'\]"):
        ActionSpec("Rewrite Script", {"script_name": "file"}, "", {}, is_edit=True)
