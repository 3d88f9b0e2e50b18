"""Measure how diverse the edits of collections are, each by itself and compared at equal numbers of edits."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rollout.dataset.edits import RecognizeRecipes, edits_by_trajectory, store_beside
from rollout.dataset.rarefaction import InstructionDistances, TrajectoryEdits, compare, measures
from rollout.errors import InfrastructureError
from rollout.exploration.embedding import embed_texts
from rollout.storage.trajectories import iterate_trajectories, trajectories_of

NUM_VERBS, NUM_NOUNS = 20, 4  # as in the paper's figure
MAX_EMBEDDED = 4000  # distinct instructions; each pair has a distance
TITLES = {
    "num_trajectories": "trajectories with edits",
    "num_edits": "edits",
    "distinct_instructions": "distinct instructions",
    "effective_instructions": "effective instructions",
    "distinct_verbs": "verbs",
    "distinct_nouns": "nouns",
    "distinct_pairs": "verb-noun pairs",
    "effective_pairs": "effective pairs",
    "distinct_categories": "categories",
    "effective_categories": "effective categories",
    "distinct_recipes": "recipes",
    "effective_recipes": "effective recipes",
    "distinct_diffs": "distinct diffs",
    "effective_diffs": "effective diffs",
    "distinct_scripts": "distinct scripts",
    "distinct_workspaces": "distinct workspaces",
    "workspace_share": "workspaces by edits",
    "mean_distance": "mean distance",
    "nearest_distance": "nearest distance",
}

Embed = Callable[[Sequence[str]], np.ndarray]

log = logging.getLogger(__name__)


def read_edits(folder: Path, recognize: RecognizeRecipes | None = None) -> TrajectoryEdits:
    """Return the edits of each trajectory of a run or folder, with their recipes if `recognize` names them.

    Raises:
        FileNotFoundError: If there are no trajectories.
        CorruptRecord: If a file is damaged.
    """
    folder = trajectories_of(folder)
    return edits_by_trajectory(iterate_trajectories(folder), store_beside(folder), recognize)


def diversity(sets: Mapping[str, TrajectoryEdits], seed: int, embed: Embed = embed_texts) -> dict[str, Any]:
    """Return the diversity of sets of edits as JSON values.

    `whole.<set>` has `num_trajectories`, `num_edits`, `rollout.dataset.rarefaction.measures` and `verb_nouns` of all
    edits; `equal` is what `rollout.dataset.rarefaction.compare` returns. If the sentence encoder fails, distances are
    left out.

    Args:
        sets: Name -> the edits of each trajectory; sets without edits are left out.
        seed: The seed of the draws.
        embed: A function that returns the unit vectors of sentences.
    """
    sets = {name: edits for name, edits in sets.items() if edits}
    distances = _distances(sets, embed)
    whole = {}
    for name, by_trajectory in sets.items():
        edits = [edit for each in by_trajectory for edit in each]
        whole[name] = {
            "num_trajectories": len(by_trajectory),
            "num_edits": len(edits),
            **measures(edits, distances),
            "verb_nouns": verb_nouns(by_trajectory),
        }
    return {"whole": whole, "equal": compare(sets, distances, seed) if sets else None}


def verb_nouns(by_trajectory: TrajectoryEdits) -> list[dict[str, Any]]:
    """Return the most frequent root verbs of instructions, each with its most frequent nouns, as shares of all edits.

    As in the figure of the paper and of Self-Instruct: 20 verbs with 4 nouns each.
    """
    pairs = Counter((*edit.labels["verbs"], *edit.labels["nouns"]) for each in by_trajectory for edit in each)
    total, verbs = pairs.total(), Counter[str]()
    complete = {pair: count for pair, count in pairs.items() if len(pair) == 2}
    for (verb, _), count in complete.items():
        verbs[verb] += count
    rows = []
    for verb, count in verbs.most_common(NUM_VERBS):
        nouns = Counter({noun: count for (other, noun), count in complete.items() if other == verb})
        shares = {noun: count / total for noun, count in nouns.most_common(NUM_NOUNS)}
        rows.append({"verb": verb, "share": count / total, "nouns": shares})
    return rows


def _distances(sets: Mapping[str, TrajectoryEdits], embed: Embed) -> InstructionDistances | None:
    """Return the distances between all instructions, None if there are too many or the encoder fails."""
    texts = sorted({edit.instruction for by_trajectory in sets.values() for each in by_trajectory for edit in each})
    if not texts:
        return None
    if len(texts) > MAX_EMBEDDED:
        log.warning("diversity without distances: more than %d different instructions", MAX_EMBEDDED)
        return None
    try:
        return InstructionDistances.of(texts, embed(texts))
    except (InfrastructureError, ValueError) as error:
        log.warning("diversity without distances: %s", error)
        return None


def table(figures: Mapping[str, Any]) -> str:
    """Return the figures of `diversity` as Markdown: all edits, equal numbers of edits, differences."""
    whole, equal = figures["whole"], figures["equal"]
    if not whole:
        return "No edits."
    parts = ["All edits:", _markdown(whole, lambda value: f"{value:.4g}")]
    if equal is not None and len(whole) > 1:
        first = next(iter(whole))
        parts += [f"At {equal['num_edits']} edits each, with 95 % intervals:", _markdown(equal["sets"], _plain)]
        parts += [f"The same, minus {first}:", _markdown(equal["differences"], _signed)]
    return "\n\n".join(parts)


def _markdown(columns: Mapping[str, Mapping[str, Any]], text: Callable[[Any], str]) -> str:
    rows = [["measure", *columns]]
    for key, title in TITLES.items():
        cells = [text(column[key]) if key in column else "" for column in columns.values()]
        if any(cells):
            rows.append([title, *cells])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|-" * len(rows[0]) + "|", *lines[1:]])


def _plain(interval: Mapping[str, float]) -> str:
    return f"{interval['mean']:.3g} [{interval['low']:.3g}, {interval['high']:.3g}]"


def _signed(interval: Mapping[str, float]) -> str:
    return f"{interval['mean']:+.3g} [{interval['low']:+.3g}, {interval['high']:+.3g}]"
