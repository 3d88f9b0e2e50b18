"""Compute the results of the learning benchmark: paired differences with intervals, and tables."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from benchmarks.figures import format_interval, table
from rollout.sampling.experience import Experience, reward_figures
from rollout.sampling.grounding import grounding_shares
from rollout.scripted.recipes import recognize
from tasks.feedback import Outcome

POLICIES = ("sft", "ppo")
SPLITS = {"held_in": "Held-in tasks", "held_out": "Held-out tasks"}
NAMES = {"random_recipe": "random recipe", "expert": "scripted expert", "sft": "SFT", "ppo": "PPO"}
FACT_NAMES = {"file_exists": "a file that exists", "best_script": "the best script", "best_score": "its score"}
NUM_RESAMPLES = 4000
NUM_RECIPES = 12  # rows in the table of recipes

Acted = dict[str, list[Experience]]  # actor -> experiences


def sums(experiences: Sequence[Experience], edits_only: bool) -> dict[str, tuple[float, int]]:
    """Return the sum of rewards and their number, by episode of the states."""
    table: dict[str, tuple[float, int]] = defaultdict(lambda: (0.0, 0))
    for experience in experiences:
        if experience.reward is None or (edits_only and experience.outcome is not Outcome.EDIT):
            continue
        total, count = table[experience.trajectory_id]
        table[experience.trajectory_id] = (total + experience.reward, count + 1)
    return table


def difference(runs: Sequence[Acted], edits_only: bool) -> dict[str, float]:
    """Return the mean reward after PPO minus that before, averaged over seeds, with its 95 % bootstrap interval.

    The states, and so the episodes, are the same in every run. Seeds are resampled, and episodes with all their states.
    """
    rng = np.random.default_rng(0)
    episodes = sorted({experience.trajectory_id for run in runs for name in POLICIES for experience in run[name]})
    tables = [{name: sums(run[name], edits_only) for name in POLICIES} for run in runs]
    # sum of rewards and their number by seed, policy and episode: [S P E 2]
    arrays = np.array([[[t[name].get(e, (0.0, 0)) for e in episodes] for name in POLICIES] for t in tables])
    weights = rng.multinomial(len(episodes), np.full(len(episodes), 1 / len(episodes)), NUM_RESAMPLES)
    chosen = rng.integers(len(runs), size=(NUM_RESAMPLES, len(runs)))

    def change(totals: Float[np.ndarray, "*b P 2"]) -> Float[np.ndarray, "*b"]:
        means = totals[..., 0] / totals[..., 1]
        return means[..., 1] - means[..., 0]

    by_seed = change(np.einsum("re,spec->rspc", weights, arrays))
    draws = np.take_along_axis(by_seed, chosen, axis=1).mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return {"mean": float(change(arrays.sum(axis=2)).mean()), "low": float(low), "high": float(high)}


def describe(experiences: Sequence[Experience]) -> dict[str, Any]:
    """Return rewards, outcome shares, grounding and the mix of recipes of one actor."""
    recipes = Counter(name for experience in experiences for name in recognize(experience.instruction))
    shares = [count / recipes.total() for count in recipes.values()]
    return {
        **reward_figures(experiences),
        "context": grounding_shares(experience.grounding for experience in experiences),
        "effective_recipes": math.exp(-sum(share * math.log(share) for share in shares)),
        "recipes": dict(recipes.most_common()),
        "num_actions": len(experiences),
    }


def summarize(baselines: Acted, runs: Sequence[Acted]) -> dict[str, Any]:
    """Return the figures of one split."""
    return {
        "baselines": {name: describe(acted) for name, acted in baselines.items()},
        "seeds": [{name: describe(acted) for name, acted in run.items()} for run in runs],
        "difference": {"all": difference(runs, False), "edits": difference(runs, True)},
        "difference_by_seed": [{"all": difference([run], False), "edits": difference([run], True)} for run in runs],
    }


def whole_trajectories(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the evaluation of one run, from its summary: gains, failures and repeats by policy."""
    evaluation = summary["evaluation"]
    figures = {
        name: {f"{split}_gain": evaluation[name][f"{split}_gain"] for split in SPLITS}
        | {f"{split}_failed_share": evaluation[name][split]["failures"]["all"] for split in SPLITS}
        | {f"{split}_repeated_share": evaluation[name][split]["repeated_share"] for split in SPLITS}
        for name in POLICIES
    }
    return {"seconds": summary["seconds"], "difference": evaluation["ppo_minus_sft"], **figures}


def markdown(result: Mapping[str, Any]) -> str:
    """Return the result as Markdown."""
    machine, versions = result["machine"], result["versions"]
    where = f"{machine['cores']} {machine['processor']} cores, Python {versions['python']}, JAX {versions['jax']}"
    lines = [f"Commit {result['commit']}, {where}; `{result['command']}`.\n"]
    for split, title in SPLITS.items():
        found = result[split]
        rows = {name: [row] for name, row in found["baselines"].items()}
        rows |= {name: [run[name] for run in found["seeds"]] for name in POLICIES}
        lines += [f"## {title}\n", *_rewards(rows), "", *_differences(found), *_readings(rows), "", *_recipes(rows), ""]
    return "\n".join([*lines, "## Whole trajectories\n", *_whole(result["runs"])])


def _whole(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the gains of each seed's policies in whole trajectories, and the share of their actions that failed."""
    heading = "seed", "minutes", "tasks", "gain, SFT", "gain, PPO", "PPO minus SFT", "failed, SFT / PPO", "repeated"
    rows: list[Sequence[object]] = [heading]
    for seed, run in enumerate(runs):
        for split, title in SPLITS.items():
            gains = [format_interval(run[name][f"{split}_gain"]) for name in POLICIES]
            failed, repeated = (
                " / ".join(f"{100 * run[name][f'{split}_{kind}_share']:.0f} %" for name in POLICIES)
                for kind in ("failed", "repeated")
            )
            difference = format_interval(run["difference"][f"{split}_gain"])
            rows.append((seed, f"{run['seconds'] / 60:.0f}", title, *gains, difference, failed, repeated))
    return table(rows).splitlines()


def _rewards(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    shares = {"invalid": "invalid", "error": "failed", "not_edited": "not edited", "edit": "edits that ran, share"}
    lines = [f"| actor | all actions | edits that ran | {' | '.join(shares.values())} |", "|-|-|-|-|-|-|-|"]
    lines.append("| never editing | 0 | | 0 % | 0 % | 0 % | 0 % |")
    for name, described in rows.items():
        cells = [f"{np.mean([row[key] for row in described]):+.3f}" for key in ("mean", "edit_mean")]
        cells += [_percent([row[f"{key}_share"] for row in described]) for key in shares]
        lines.append(f"| {NAMES[name]} | {' | '.join(cells)} |")
    return lines


def _differences(found: Mapping[str, Any]) -> list[str]:
    lines = []
    for key, words in (("all", "all actions"), ("edits", "edits that ran")):
        each = ", ".join(f"{seed[key]['mean']:+.3f}" for seed in found["difference_by_seed"])
        lines.append(f"- PPO less SFT, {words}: {format_interval(found['difference'][key])}; by seed {each}.")
    return lines


def _readings(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    lines = []
    for name in POLICIES:
        context = [row["context"] for row in rows[name]]
        shares = (f"{words} {_percent([c[fact] for c in context])}" for fact, words in FACT_NAMES.items())
        lines.append(f"- {NAMES[name]} repeats from its context: {', '.join(shares)}.")
    return lines


def _recipes(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return the share of each requested recipe, and the number that would be equally frequent at the same entropy."""
    asked = {name: sum((Counter(row["recipes"]) for row in described), Counter()) for name, described in rows.items()}
    shares = {name: {r: n / max(count.total(), 1) for r, n in count.items()} for name, count in asked.items()}
    asked_for = dict.fromkeys(recipe for policy in POLICIES for recipe in shares[policy])
    peak = {recipe: max(shares[policy].get(recipe, 0.0) for policy in POLICIES) for recipe in asked_for}
    lines = [f"| recipe | {' | '.join(NAMES[name] for name in rows)} |", "|-|" + "-|" * len(rows)]
    for recipe in sorted(peak, key=lambda recipe: -peak[recipe])[:NUM_RECIPES]:
        cells = (_percent([shares[name].get(recipe, 0.0)]) for name in rows)
        lines.append(f"| {recipe.replace('_', ' ')} | {' | '.join(cells)} |")
    effective = (f"{np.mean([row['effective_recipes'] for row in described]):.1f}" for described in rows.values())
    return [*lines, f"| *effective number of recipes* | {' | '.join(effective)} |"]


def _percent(shares: Sequence[float]) -> str:
    return f"{100 * np.mean(shares):.1f} %"
