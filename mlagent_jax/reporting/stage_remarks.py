"""The counts of a stage that a user should know, and the shares above which its result is in doubt."""

from collections.abc import Mapping

from mlagent_jax.reporting.remarks import Rule
from rollout.storage.run_layout import EVALUATED

READ_LOG = "their causes are in log.txt"
FORMAT = "the policy learns to answer like this; select.filters=[acted,no_leak,valid_format] drops their trajectories"
FILTERS = {
    "acted": "have no action",
    "valid_format": "have a response that is no valid action",
    "ended": "ended at a limit",
    "edited": "have no edit that ran",
    "improved": "are no better than the initial script",
    "no_leak": "mention ideas that only the expert saw",
    "max_characters": "are longer than select.max_characters",
    "max_similarity": "repeat another one of their task",
    "max_trajectories": "are more than select.max_trajectories",
}
SOFT_FILTERS = ("max_trajectories",)  # drop trajectories that nothing is wrong with


def _episodes(prefix: str, limits: str, max_unimproved: float = 0.99) -> tuple[Rule, ...]:
    """Return the rules for the figures of `Tally` under a prefix; `limits` is the section with the episodes' limits."""
    planned = (f"{prefix}num_trajectories", f"{prefix}num_lost")
    finished, acted, steps = (f"{prefix}num_trajectories",), (f"{prefix}num_acted",), (f"{prefix}num_steps",)
    return (
        Rule(f"{prefix}num_lost", planned, "episodes were lost to failures of the infrastructure", 0.0, READ_LOG),
        Rule(
            f"{prefix}num_retried",
            planned,
            "episodes were run again after failures of the infrastructure",
            0.2,
            READ_LOG,
        ),
        Rule(f"{prefix}num_failed", steps, "actions failed", 0.5, "read some with `mlagent data view`"),
        Rule(
            f"{prefix}num_not_edited",
            steps,
            "actions are edits that the coder did not make",
            0.3,
            "use another coder.model or coder.edit_format",
        ),
        Rule(
            f"{prefix}num_out_of_time", finished, f"trajectories ended at {limits}.max_minutes", 0.5, "raise the limit"
        ),
        Rule(
            f"{prefix}num_out_of_context",
            finished,
            "trajectories ended because the model's context was full",
            0.5,
            "use a larger context or a smaller max_response_tokens",
        ),
        Rule(
            f"{prefix}num_unsubmitted",
            acted,
            "trajectories have no valid submission",
            0.9,
            "their scores are those of the initial scripts",
        ),
        Rule(
            f"{prefix}num_unimproved",
            acted,
            "trajectories are no better than the initial script",
            max_unimproved,
            "they show nothing that improves a script",
        ),
    )


def endpoint_rules(name: str) -> tuple[Rule, ...]:
    """Return the rules for the figures of an endpoint, `expert` or `coder`."""
    answers = (f"{name}.answers",)
    tokens = f"raise {name}.max_response_tokens, or switch reasoning off at the server"
    return (
        Rule(f"{name}.empty", answers, f"answers of the {name} have no text", 0.1, tokens),
        Rule(f"{name}.cut", answers, f"answers of the {name} were cut by the token limit", 0.1, tokens),
        Rule(f"{name}.refused", answers, f"answers of the {name} are refusals", 0.1, f"use another {name}.model"),
        Rule(f"{name}.retries", (f"{name}.requests",), f"requests to the {name} gave no answer", 0.2, READ_LOG),
        Rule(
            f"{name}.estimated",
            (f"{name}.requests",),
            f"requests to the {name} have no token counts, so estimates are in its costs",
            0.5,
            "check the dollars with the provider",
        ),
    )


def _scripts() -> tuple[Rule, ...]:
    started = ("scripts/started",)
    limit = "the limits of scripts in task.yaml may be too low for this machine"
    return (
        Rule("scripts/crashed", started, "scripts crashed", 0.5, "read some with `mlagent data view`"),
        Rule("scripts/timeout", started, "scripts ran out of time", 0.3, limit),
        Rule("scripts/out_of_memory", started, "scripts ran out of memory", 0.3, limit),
        Rule("scripts/out_of_disk", started, "scripts ran out of disk space", 0.3, limit),
        Rule("scripts/out_of_processes", started, "scripts needed too many processes", 0.3, limit),
        Rule("scripts/out_of_files", started, "scripts had too many files open", 0.3, limit),
        Rule("scripts/killed", started, "scripts were killed by a signal", 0.1, READ_LOG),
        Rule("scripts/infrastructure", started, "scripts failed with their sandbox", 0.1, READ_LOG),
        Rule("scripts/failed", started, "scripts have an unknown outcome", 0.1, READ_LOG),
    )


def _lenient(prefix: str, whose: str) -> Rule:
    """Return the rule for responses that are not exact, which is no reason for a warning."""
    what = f"actions {whose}were read after Markdown or text around them was removed"
    return Rule(f"{prefix}num_lenient", (f"{prefix}num_valid",), what, 1.0, "")


def _evaluated(policy: str) -> tuple[Rule, ...]:
    return (
        Rule(
            f"{policy}.num_invalid",
            (f"{policy}.num_steps",),
            f"responses of the {policy} policy are no valid action",
            0.5,
            "it cannot act, so its gain says little",
        ),
        _lenient(f"{policy}.", f"of the {policy} policy "),
        Rule(
            f"{policy}.num_tasks_unsubmitted",
            (f"{policy}.num_tasks",),
            f"tasks have no valid submission of the {policy} policy",
            0.5,
            "their scores are those of the initial scripts",
        ),
        *_episodes(f"{policy}.", "evaluate", max_unimproved=1.0),  # the gains say how good a policy is
    )


RULES: Mapping[str, tuple[Rule, ...]] = {
    "collect": (
        Rule("num_invalid", ("num_steps",), "responses are no valid action", 0.5, FORMAT),
        _lenient("", ""),
        Rule(
            "num_imported",
            ("num_trajectories",),
            "trajectories have no workspaces",
            0.9,
            "PPO starts in none of their states",
        ),
        Rule(
            "num_short_pools",
            ("num_pools",),
            "pools of ideas have fewer ideas than ideas.pool_size",
            0.5,
            "the expert explores less; use another expert.model or ideas.source=library",
        ),
        *_episodes("", "collect"),
        *_scripts(),
        *endpoint_rules("expert"),
        *endpoint_rules("coder"),
    ),
    "sft": (
        *(
            Rule(
                f"dropped_trajectories.{name}",
                ("num_read",),
                f"trajectories are dropped, because they {what}",
                1.0 if name in SOFT_FILTERS else 0.9,
                "little is left to train on; loosen `select`, or collect more",
            )
            for name, what in FILTERS.items()
        ),
        Rule("num_invalid", ("num_responses",), "responses in the training data are no valid action", 0.5, FORMAT),
        Rule(
            "cut_sequences",
            ("num_sequences",),
            "sequences lose their last turns, because they are longer than sft.max_length",
            0.5,
            "the policy rarely sees how a trajectory ends; raise sft.max_length",
        ),
        Rule(
            "unused_sequences",
            ("num_sequences",),
            "sequences are not trained on, because not even their first turn fits sft.max_length",
            0.1,
            "raise sft.max_length",
        ),
    ),
    "ppo": (
        Rule(
            "num_imported",
            ("num_selected",),
            "selected trajectories have no workspaces, so that PPO starts in none of their states",
            0.9,
            "collect more with the expert",
        ),
        Rule(
            "num_long_states",
            ("num_long_states", "pool_states"),
            "states are not used, because their prompt leaves no room for ppo.max_response_tokens",
            0.5,
            "raise server.max_model_len",
        ),
        Rule("num_masked", ("num_actions",), "actions were lost to failures of the infrastructure", 0.1, READ_LOG),
        Rule(
            "num_restarted_updates",
            ("num_updates",),
            "updates lost the policy server, which got its weights again",
            0.1,
            "server.log has the causes",
        ),
        Rule(
            "num_redone_updates",
            ("num_updates",),
            "updates lost more than ppo.max_masked_share of their actions, which then ran again",
            0.1,
            READ_LOG,
        ),
        Rule(
            "num_cut_updates",
            ("num_updates",),
            "updates left out most of their actions, because ppo.acting_seconds was over",
            0.2,
            "raise ppo.acting_seconds or executor.slots",
        ),
        Rule(
            "num_invalid",
            ("num_known",),
            "actions are no valid action",
            0.8,
            "the policy cannot act, so there is little to reinforce; fine-tune it on more trajectories first",
        ),
        Rule(
            "num_flat_updates",
            ("num_updates",),
            "updates had the same reward for every action, so that nothing could be learned from them",
            0.5,
            "use ppo.states=evolving, more ppo.samples_per_state or easier tasks",
        ),
        Rule(
            "num_rejected_updates",
            ("num_updates",),
            "updates left the policy unchanged, because every step was longer than ppo.max_update_kl allows",
            0.2,
            "lower ppo.learning_rate or raise ppo.max_update_kl",
        ),
        *_scripts(),
    ),
    "evaluate": (*(rule for policy in EVALUATED for rule in _evaluated(policy)), *_scripts()),
}
