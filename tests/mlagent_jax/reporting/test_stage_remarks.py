"""The rules of the remarks: what they name is counted, and what a good run counts is no warning."""

from typing import get_args

from mlagent_jax.ppo.accounting import update_counts
from mlagent_jax.reporting.remarks import remarks
from mlagent_jax.reporting.stage_remarks import FILTERS, RULES
from mlagent_jax.stages import STAGE_NAMES
from rollout.executor.scheduling.scheduler import Figures
from rollout.options import FilterName
from rollout.sampling.collection import Tally
from rollout.types import Exit

EPISODES = {
    **Tally(num_trajectories=40, num_submitted=40, num_improved=20).figures(),
    "num_steps": 400,
    "num_invalid": 20,
    "num_failed": 60,
    "num_valid": 380,
    "num_lenient": 380,
}


def test_every_rule_belongs_to_a_stage_and_every_filter_has_one() -> None:
    assert set(RULES) <= set(STAGE_NAMES)
    assert set(get_args(FilterName)) <= set(FILTERS)


def test_what_the_rules_of_ppo_name_is_counted() -> None:
    counted = {*update_counts([]), "pool_states", "num_long_states", "num_imported", "num_selected"} | set(
        Figures().flat()
    )
    assert {name for rule in RULES["ppo"] for name in (rule.num, *rule.total)} <= counted


def test_every_way_in_which_a_script_fails_is_said() -> None:
    said = {rule.num for rule in RULES["collect"]}
    assert {f"scripts/{exit}" for exit in Exit if exit is not Exit.OK} <= said


def test_a_good_collection_has_no_warning() -> None:
    said = remarks(RULES["collect"], EPISODES)
    assert [remark.text for remark in said if remark.is_warning] == []
    assert "20 of 400 responses are no valid action" in [remark.text for remark in said]
    lenient = "380 of 380 actions were read after Markdown or text around them was removed"
    assert lenient in [remark.text for remark in said]


def test_a_good_evaluation_has_no_warning_although_the_initial_script_improves_nothing() -> None:
    tasks = {"num_tasks": 4, "num_tasks_unsubmitted": 0}
    policies = {name: {**EPISODES, **tasks} for name in ("initial", "sft", "ppo")}
    policies["initial"] |= {"num_unimproved": 40}
    assert [remark.text for remark in remarks(RULES["evaluate"], policies) if remark.is_warning] == []
    policies["ppo"] |= {"num_tasks_unsubmitted": 4, "num_invalid": 400}
    said = [remark.text for remark in remarks(RULES["evaluate"], policies) if remark.is_warning]
    assert [text.partition(":")[0] for text in said] == [
        "400 of 400 responses of the ppo policy are no valid action",
        "4 of 4 tasks have no valid submission of the ppo policy",
    ]


def test_what_selection_dropped_is_said_and_warns_if_little_is_left() -> None:
    figures = {"num_read": 100, "dropped_trajectories": {"no_leak": 92, "max_similarity": 3, "max_trajectories": 0}}
    found = remarks(RULES["sft"], figures)
    assert [(remark.text.partition(":")[0], remark.is_warning) for remark in found] == [
        ("92 of 100 trajectories are dropped, because they mention ideas that only the expert saw", True),
        ("3 of 100 trajectories are dropped, because they repeat another one of their task", False),
    ]


def test_updates_with_one_reward_for_all_actions_warn() -> None:
    lines = [{"ppo/update": float(i), "reward/actions": 8.0, "reward/std": 0.0} for i in range(4)]
    (remark,) = remarks(RULES["ppo"], update_counts(lines))
    assert remark.is_warning and remark.text.startswith("4 of 4 updates had the same reward for every action")
