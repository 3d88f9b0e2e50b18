"""Summarize `benchmarks.claims`: the gains of every arm, the claims, a table beside the paper's, and pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmarks.exploration_gains import SPLITS, gains_by_task
from benchmarks.figures import format_interval, save_panels, table
from mlagent_jax.reporting.figures import MUTED, STYLE
from rollout.sampling.intervals import bootstrap, sign_flip_p

LABELS = {
    "ml_agent": "ML-Agent",
    "episode_wise": "episode-wise RL",
    "no_ideas": "without ideas",
    "no_ml_reward": "without the ML reward",
    "tasks_3": "RL on 3 tasks",
    "tasks_6": "RL on 6 tasks",
    "expert_states": "RL in the expert's states",
    "critic": "RL with a critic",
}
LINES = {"sft": "#8a8a8a", "expert_states": "#4878a8", "ml_agent": "#d1603d"}  # of the picture of failures
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
MIN_TASKS = 5
ABLATIONS = ("episode_wise", "no_ideas", "no_ml_reward")
CLAIMS = {  # two arms: the first gains more
    ("ml_agent", "sft"): "RL gains more than SFT alone",
    **{("ml_agent", arm): f"ML-Agent gains more than {LABELS[arm]}" for arm in ABLATIONS},
    ("tasks_6", "tasks_3"): "RL on 6 tasks gains more than on 3",
    ("ml_agent", "tasks_6"): "RL on all tasks gains more than on 6",
    ("ml_agent", "expert_states"): "RL in its own states too gains more than in the expert's",
    ("ml_agent", "critic"): "RL without a critic gains more than with one",
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
    provenance = {key: records[-1][key] for key in ("versions", "machine", "command")}
    return {"commits": sorted({str(each["commit"]) for each in records}), **provenance, "arms": arms, "claims": claims}


def policy_figures(records: Sequence[Mapping[str, Any]], side: str) -> dict[str, Any]:
    """Return the figures of one policy over its seeds, `before` or `after` PPO."""
    found = [record[side] for record in records]
    splits = {}
    for split in SPLITS:
        gains = gains_of(records, side, split)
        splits[split] = {
            "gain": bootstrap(_nested(gains), 0),
            "relative_gain": fmean([one[f"{split}_relative_gain"]["mean"] for one in found]),
            "failed_share": fmean([one[split]["failures"]["all"] for one in found]),
            "repeated_share": fmean([one[split]["repeated_share"] for one in found]),
        }
    return {
        "seeds": len(records),
        "updates": fmean([len(record["rewards"]) for record in records]) if side == "after" else 0,
        "effective_kinds": fmean([one["edits"]["effective_kinds"] for one in found]),
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
    """Return the claims and the gains as tables."""
    rows: list[Sequence[object]] = [("claim", "difference of gains [95 %]", "p", "seeds", "here")]
    for name, found in result["claims"].items():
        ours, theirs = name.split()
        rows.append(
            (CLAIMS[ours, theirs], format_interval(found["gain"]), f"{found['p']:.3f}", found["seeds"], verdict(found))
        )
    heading = ("policy", "seeds", "updates", "held-in gain [95 %]", "held-out gain [95 %]")
    own: list[Sequence[object]] = [(*heading, "failed, held-in / held-out", "repeated edits", "kinds of edits")]
    beside: list[Sequence[object]] = [("policy", "held-in here", "held-out here", "paper, held-in", "paper, held-out")]
    for arm, found in result["arms"].items():
        label = LABELS.get(arm, "SFT alone")
        sides = [found[split] for split in SPLITS]
        failed = " / ".join(f"{100 * each['failed_share']:.0f} %" for each in sides)
        repeated = " / ".join(f"{100 * each['repeated_share']:.0f} %" for each in sides)
        gains = [format_interval(each["gain"]) for each in sides]
        kinds = f"{found['effective_kinds']:.1f}"
        own.append((label, found["seeds"], f"{found['updates']:.0f}", *gains, failed, repeated, kinds))
        paper = ["" if value is None else f"{value:+.2f} %" for value in PAPER.get(arm, (None, None))]
        beside.append((label, *(f"{100 * each['relative_gain']:+.2f} %" for each in sides), *paper))
    where = result["machine"]
    return (
        f"`{result['command']}`, {where['processor']}, {where['cores']} cores. Gain is (m - m_init) / "
        "(m_best - m_init). A difference is of held-out gains, paired by task and seed; p is of a sign-flip test over "
        "tasks.\n\n"
        f"{table(rows)}\n\n{table(own)}\n\n"
        "Relative gains, (m - m_init) / |m_init|, beside the paper's, which are of another policy (7B), other tasks "
        f"and another expert:\n\n{table(beside)}"
    )


def draw_gains(result: Mapping[str, Any], path: Path) -> None:
    """Draw the gain of every arm with its interval, one panel for held-in tasks and one for held-out tasks."""
    arms = list(result["arms"])
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "claims"}):
        figure = Figure(figsize=(8.4, 0.6 + 0.42 * len(arms)), layout="constrained")
        panels = figure.subplots(1, len(SPLITS), sharey=True)
        for axes, (split, title) in zip(panels, SPLITS.items(), strict=True):
            axes.axvline(0, color=MUTED, linewidth=0.8)
            for place, arm in enumerate(arms):
                gain = result["arms"][arm][split]["gain"]
                error = [[max(0.0, gain["mean"] - gain["low"])], [max(0.0, gain["high"] - gain["mean"])]]
                color = "#d1603d" if arm == "ml_agent" else "#4878a8"
                axes.errorbar(gain["mean"], place, xerr=error, fmt="o", color=color, capsize=3)
            axes.set_title(title, fontsize=10, loc="left")
            axes.set_xlabel("gain")
        panels[0].set_yticks(range(len(arms)), [LABELS.get(arm, "SFT alone") for arm in arms])
        panels[0].invert_yaxis()
        figure.savefig(path, format="svg", metadata={"Date": None})


def draw_failures(result: Mapping[str, Any], path: Path) -> None:
    """Draw the share of actions that fail against their place in a whole trajectory, before and after PPO."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "failures"}):
        figure = Figure(figsize=(5.2, 3.2), layout="constrained")
        axes = figure.subplots()
        for arm, color in LINES.items():
            if arm in result["arms"]:
                shares = result["arms"][arm]["failed_by_step"]
                label = LABELS.get(arm, "SFT alone")
                axes.plot(range(1, len(shares) + 1), shares, color=color, marker="o", linewidth=1.8, label=label)
        axes.set_xlabel("action of a trajectory")
        axes.set_ylim(0, 1)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        save_panels(figure, [axes], "share that fails", path)


def _nested(gains: Gains) -> list[list[list[float]]]:
    return [list(by_seed.values()) for by_seed in gains.values()]


def _mean_of_lists(lists: Sequence[Sequence[float]]) -> list[float]:
    """Return the mean of the first elements, of the second ones, and so on, over the lists that are that long."""
    return [fmean([each[at] for each in lists if at < len(each)]) for at in range(max(map(len, lists), default=0))]
