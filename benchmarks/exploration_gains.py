"""Compute the results of the exploration benchmark: gains after each stage, their differences, and intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from benchmarks.figures import format_interval, table
from rollout.dataset.diversity import table as diversity_table
from rollout.sampling.intervals import NUM_RESAMPLES, expanded_tail

ARMS = {"ideas": "with ideas", "none": "without ideas"}
POLICIES = {"sft": "after SFT", "ppo": "after PPO"}
SPLITS = {"held_in": "held-in tasks", "held_out": "held-out tasks"}

Gains = Sequence[Mapping[str, Sequence[float]]]  # seed -> task -> the gain of each trajectory


def gains_by_task(evaluation: Mapping[str, Any], split: str) -> dict[str, list[float]]:
    """Return (m - m_init) / (m_best - m_init) of every trajectory of one policy, by task of a split."""
    return {
        name: [(score - task["m_init"]) / (task["m_best"] - task["m_init"]) for score in task["scores"]]
        for name, task in evaluation["tasks"].items()
        if task["split"] == split
    }


def resampled_means(groups: Mapping[str, Gains], seed: int) -> dict[str, Float[np.ndarray, " draws"]]:
    """Return bootstrap means of every group over seeds, tasks and trajectories.

    A draw has the same seeds and tasks in all groups, because the groups share them, and its own trajectories for each.
    """
    rng = np.random.default_rng(seed)
    first = next(iter(groups.values()))
    tasks = sorted(first[0])
    means = {name: np.empty(NUM_RESAMPLES) for name in groups}
    for draw in range(NUM_RESAMPLES):
        seeds = rng.integers(len(first), size=len(first))
        names = [tasks[index] for index in rng.integers(len(tasks), size=len(tasks))]
        for group, gains in groups.items():
            drawn = [rng.choice(gains[s][name], size=len(gains[s][name])).mean() for s in seeds for name in names]
            means[group][draw] = np.mean(drawn)
    return means


def mean_gain(gains: Gains) -> float:
    """Return the mean over seeds of the mean over tasks of the mean over trajectories."""
    return float(np.mean([np.mean(values) for by_task in gains for values in by_task.values()]))


def compare(gains: Mapping[str, Mapping[str, Gains]], seed: int) -> dict[str, Any]:
    """Return means and differences with 95 % intervals, from gains by arm and policy.

    The keys are `gain.<arm>.<policy>`, `ideas_less_none.<policy>`, `ppo_less_sft.<arm>`, and `ppo_by_seed.<arm>`, which
    has means only.
    """
    groups = {f"{arm} {policy}": gains[arm][policy] for arm in ARMS for policy in POLICIES}
    draws = resampled_means(groups, seed)
    tail = expanded_tail(len(groups[next(iter(groups))][0]))  # for the number of tasks

    def interval(plus: str, minus: str | None = None) -> dict[str, float]:
        sample = draws[plus] - (draws[minus] if minus else 0.0)
        low, high = np.quantile(sample, (tail, 1 - tail))
        mean = mean_gain(groups[plus]) - (mean_gain(groups[minus]) if minus else 0.0)
        return {"mean": mean, "low": float(low), "high": float(high)}

    return {
        "gain": {arm: {policy: interval(f"{arm} {policy}") for policy in POLICIES} for arm in ARMS},
        "ideas_less_none": {policy: interval(f"ideas {policy}", f"none {policy}") for policy in POLICIES},
        "ppo_less_sft": {arm: interval(f"{arm} ppo", f"{arm} sft") for arm in ARMS},
        "ppo_by_seed": {arm: [mean_gain([each]) for each in gains[arm]["ppo"]] for arm in ARMS},
    }


def to_markdown(result: Mapping[str, Any]) -> str:
    """Return the comparison as Markdown."""
    parts = [f"Commit {result['commit']}, {result['machine']['cores']} cores; `{result['command']}`."]
    parts.append("Gain is (m - m_init) / (m_best - m_init) of whole trajectories, with its 95 % interval.")
    rows: list[tuple[object, ...]] = [("", *ARMS.values(), "difference")]
    for split, title in SPLITS.items():
        found = result["gains"][split]
        for policy, when in POLICIES.items():
            cells = [format_interval(found["gain"][arm][policy]) for arm in ARMS]
            rows.append((f"{title}, {when}", *cells, format_interval(found["ideas_less_none"][policy])))
        rows.append((f"{title}, PPO less SFT", *(format_interval(found["ppo_less_sft"][arm]) for arm in ARMS), ""))
        by_seed = (", ".join(f"{each:+.3f}" for each in found["ppo_by_seed"][arm]) for arm in ARMS)
        rows.append((f"{title}, after PPO, by seed", *by_seed, ""))
    parts.append(table(rows))
    runs: list[tuple[object, ...]] = [
        ("run", "trajectories", "SFT steps", "SFT tokens", "held-out perplexity", "minutes")
    ]
    for arm, title in ARMS.items():
        for seed, run in enumerate(result["runs"][arm]):
            figures = (run["trajectories"], run["steps"], f"{run['tokens']:,}", f"{run['validation_perplexity']:.3f}")
            runs.append((f"{title}, seed {seed}", *figures, f"{run['minutes']:.0f}"))
    variety = "How diverse the edits of the evaluated policies are, all seeds together."
    return "\n\n".join([*parts, table(runs), variety, diversity_table(result["diversity"])])
