"""Summarize `benchmarks.claims`: the gains, failures and edits of every arm, the claims, and the paper's figures."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from benchmarks.exploration_gains import SPLITS, gains_by_task
from benchmarks.figures import format_interval, table
from rollout.sampling.intervals import bootstrap, sign_flip_p

LABELS = {
    "sft": "SFT alone",
    "ml_agent": "ML-Agent",
    "episode_wise": "episode-wise RL",
    "no_ideas": "without ideas",
    "no_ml_reward": "without the ML reward",
    "tasks_3": "RL on 3 tasks",
    "tasks_6": "RL on 6 tasks",
    "expert_states": "RL in the expert's states",
    "critic": "RL with a critic",
    "weaker_kl": "RL with a KL coefficient of 0.06",
    "stronger_kl": "RL with a KL coefficient of 0.2",
}
# Mean relative gains of the paper's policy in percent, held-in and held-out (arXiv 2505.23723, ablations).
PAPER = {
    "sft": (8.34, 0.41),
    "ml_agent": (18.01, 15.91),
    "episode_wise": (10.71, 2.86),
    "no_ideas": (-0.66, -6.20),
    "no_ml_reward": (9.77, -1.65),
    "tasks_3": (None, 3.53),
    "tasks_6": (None, 5.98),
}
CAUSES = {
    "all": "all",
    "invalid": "no action",
    "not_edited": "not edited",
    "repeated": "repeated",
    "unknown_file": "unknown file",
    "refused": "refused",
    "script": "script failed",
    "limit": "over a limit",
}
MIN_TASKS = 5
ABLATIONS = ("episode_wise", "no_ideas", "no_ml_reward")
CLAIMS = {  # two arms: the first gains more
    ("ml_agent", "sft"): "RL gains more than SFT alone",
    **{("ml_agent", arm): f"ML-Agent gains more than {LABELS[arm]}" for arm in ABLATIONS},
    ("tasks_6", "tasks_3"): "RL on 6 tasks gains more than on 3",
    ("ml_agent", "tasks_6"): "RL on all tasks gains more than on 6",
    ("ml_agent", "expert_states"): "RL in its own states too gains more than in the expert's",
    ("ml_agent", "critic"): "RL without a critic gains more than with one",
    ("ml_agent", "weaker_kl"): "RL with a KL coefficient of 0.1 gains more than with 0.06",
    ("ml_agent", "stronger_kl"): "RL with a KL coefficient of 0.1 gains more than with 0.2",
}

Gains = dict[str, dict[int, list[float]]]  # task -> seed -> gain of each trajectory


def summarize(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the gains of every arm, its failures and edits, and the differences that the claims are about.

    Intervals are over tasks, then seeds, then trajectories. A difference is paired by task and seed, and its p-value is
    of a sign-flip test over tasks.
    """
    by_arm: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        by_arm.setdefault(record["arm"], []).append(record)
    own = by_arm.get("ml_agent", [])
    arms = {"sft": policy_figures(own, "before")} if own else {}
    arms |= {arm: policy_figures(found, "after") for arm, found in by_arm.items()}
    gains = {arm: gains_of(found, "after", "held_out") for arm, found in by_arm.items()}
    gains["sft"] = gains_of(own, "before", "held_out")
    claims = {
        f"{ours} {theirs}": difference(gains[ours], gains[theirs])
        for ours, theirs in CLAIMS
        if gains.get(ours) and gains.get(theirs)
    }
    sources = {f"{key}s": sorted({str(each[key]) for each in records}) for key in ("commit", "command")}
    where = {key: records[-1][key] for key in ("versions", "machine")}
    return {**sources, **where, "arms": arms, "claims": claims}


def policy_figures(records: Sequence[Mapping[str, Any]], side: str) -> dict[str, Any]:
    """Return the figures of one policy over its seeds, `before` or `after` PPO."""
    found = [record[side] for record in records]
    splits = {}
    for split in SPLITS:
        gains = gains_of(records, side, split)
        splits[split] = {
            "gain": bootstrap(_nested(gains), 0),
            "relative_gain": fmean([one[f"{split}_relative_gain"]["mean"] for one in found]),
            "failures": {cause: fmean([one[split]["failures"][cause] for one in found]) for cause in CAUSES},
            "repeated_share": fmean([one[split]["repeated_share"] for one in found]),
        }
    return {
        "seeds": len(records),
        "updates": fmean([len(record["rewards"]) for record in records]) if side == "after" else 0,
        "effective_kinds": fmean([one["edits"]["effective_kinds"] for one in found]),
        "choice": [one["edits"]["choice"] for one in found],
        "failed_by_step": _mean_of_lists([one["failed_by_step"] for one in found]),
        **splits,
    }


def gains_of(records: Sequence[Mapping[str, Any]], side: str, split: str) -> Gains:
    """Return the gain of every trajectory by task and seed."""
    gains: Gains = {}
    for record in records:
        for task, values in gains_by_task(record[side], split).items():
            gains.setdefault(task, {})[record["seed"]] = values
    return gains


def difference(ours: Gains, theirs: Gains) -> dict[str, Any]:
    """Return the paired difference of mean gains over the tasks and seeds that both have."""
    seeds = sorted(set.intersection(*(set(by_seed) for gains in (ours, theirs) for by_seed in gains.values())))
    values = [[fmean(ours[task][seed]) - fmean(theirs[task][seed]) for seed in seeds] for task in ours]
    p = sign_flip_p([fmean(each) for each in values], 0)
    return {"gain": bootstrap(values, 0), "p": p, "seeds": len(seeds), "tasks": len(values)}


def verdict(found: Mapping[str, Any]) -> str:
    """Return whether a claim holds: its interval is above zero, below, or has it inside.

    With fewer than `MIN_TASKS` tasks the interval is too narrow to tell (see `bootstrap`).
    """
    gain = found["gain"]
    if found["tasks"] < MIN_TASKS:
        return "too few tasks"
    return "holds" if gain["low"] > 0 else "the opposite holds" if gain["high"] < 0 else "not shown"


def to_markdown(result: Mapping[str, Any]) -> str:
    """Return the claims, the gains, the failures and the edits as tables."""
    where, commands = result["machine"], ", ".join(f"`{each}`" for each in result["commands"])
    return (
        f"{commands}, {where['processor']}, {where['cores']} cores. Gain is (m - m_init) / (m_best - m_init). A "
        "difference is of held-out gains, paired by task and seed; p is of a sign-flip test over tasks.\n\n"
        f"{_claims_table(result['claims'])}\n\n{_gains_table(result['arms'])}\n\n"
        "Share of the actions in whole trajectories that fail, in percent, by cause, held-in / held-out:\n\n"
        f"{_failures_table(result['arms'])}\n\n"
        "Edits in whole trajectories. The number of kinds is the effective one, exp of the entropy. Nats are of mutual "
        "information between task and kind, beyond what chance gives, with the p-value of a permutation test for each "
        "seed:\n\n"
        f"{_edits_table(result['arms'])}\n\n"
        "Relative gains, (m - m_init) / |m_init|, beside the paper's, which are of another policy (7B), other tasks "
        f"and another expert:\n\n{_paper_table(result['arms'])}"
    )


def _claims_table(claims: Mapping[str, Any]) -> str:
    rows: list[Sequence[object]] = [("claim", "difference of gains [95 %]", "p", "seeds", "here")]
    for name, found in claims.items():
        ours, theirs = name.split()
        rows.append(
            (CLAIMS[ours, theirs], format_interval(found["gain"]), f"{found['p']:.3f}", found["seeds"], verdict(found))
        )
    return table(rows)


def _gains_table(arms: Mapping[str, Any]) -> str:
    rows: list[Sequence[object]] = [("policy", "seeds", "updates", "held-in gain [95 %]", "held-out gain [95 %]")]
    for arm, found in arms.items():
        gains = [format_interval(found[split]["gain"]) for split in SPLITS]
        rows.append((LABELS[arm], found["seeds"], f"{found['updates']:.0f}", *gains))
    return table(rows)


def _failures_table(arms: Mapping[str, Any]) -> str:
    rows: list[Sequence[object]] = [("policy", *CAUSES.values())]
    for arm, found in arms.items():
        sides = [found[split]["failures"] for split in SPLITS]
        rows.append((LABELS[arm], *(" / ".join(f"{100 * side[cause]:.0f}" for side in sides) for cause in CAUSES)))
    return table(rows)


def _edits_table(arms: Mapping[str, Any]) -> str:
    rows: list[Sequence[object]] = [("policy", "kinds", "repeated, held-in / held-out", "nats by task", "p")]
    for arm, found in arms.items():
        repeated = " / ".join(f"{100 * found[split]['repeated_share']:.0f} %" for split in SPLITS)
        choices = [each for each in found["choice"] if each]
        nats = fmean([each["information"] - each["by_chance"] for each in choices]) if choices else 0.0
        p_values = ", ".join(f"{each['p_value']:.3f}" for each in choices)
        rows.append((LABELS[arm], f"{found['effective_kinds']:.1f}", repeated, f"{nats:+.2f}", p_values))
    return table(rows)


def _paper_table(arms: Mapping[str, Any]) -> str:
    rows: list[Sequence[object]] = [("policy", "held-in here", "held-out here", "paper, held-in", "paper, held-out")]
    for arm, found in arms.items():
        own = [f"{100 * found[split]['relative_gain']:+.2f} %" for split in SPLITS]
        paper = ["" if value is None else f"{value:+.2f} %" for value in PAPER.get(arm, (None, None))]
        rows.append((LABELS[arm], *own, *paper))
    return table(rows)


def _nested(gains: Gains) -> list[list[list[float]]]:
    return [list(by_seed.values()) for by_seed in gains.values()]


def _mean_of_lists(lists: Sequence[Sequence[float]]) -> list[float]:
    """Return the mean of the first elements, of the second ones, and so on, over the lists that are that long."""
    return [fmean([each[at] for each in lists if at < len(each)]) for at in range(max(map(len, lists), default=0))]
