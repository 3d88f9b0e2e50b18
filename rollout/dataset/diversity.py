"""How diverse the edits of collections are, each for itself and against one another at equal numbers of edits.

python -m rollout.dataset diversity FOLDER [FOLDER ...]
"""

import argparse
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rollout.dataset.edits import edits_by_trajectory, store_beside
from rollout.dataset.rarefaction import Spread, Units, compare, measures
from rollout.errors import InfrastructureError
from rollout.exploration.embedding import embed_texts
from rollout.storage.trajectories import iterate_trajectories, trajectories_of

NUM_VERBS, NUM_NOUNS = 20, 4  # as many as the paper's figure shows
MAX_EMBEDDED = 4000  # distinct instructions; every two of them have a distance
TITLES = {
    "num_trajectories": "trajectories with edits",
    "num_edits": "edits",
    "distinct_instructions": "distinct instructions",
    "effective_instructions": "effective instructions",
    "distinct_verbs": "verbs",
    "distinct_nouns": "nouns",
    "distinct_pairs": "verb-noun pairs",
    "effective_pairs": "effective pairs",
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


def read_units(folder: Path) -> Units:
    """Return the edits of each trajectory of a folder, or of a run. Raises FileNotFoundError and CorruptRecord."""
    return edits_by_trajectory(iterate_trajectories(trajectories_of(folder)), store_beside(trajectories_of(folder)))


def diversity(sets: Mapping[str, Units], seed: int, embed: Embed = embed_texts) -> dict[str, Any]:
    """Return the diversity of sets of edits as JSON values: `whole`, each as it stands, and `equal`, compared.

    `whole.<set>` has `num_trajectories`, `num_edits`, `rollout.dataset.rarefaction.measures` and `verb_nouns`; `equal`
    is what `rollout.dataset.rarefaction.compare` returns. Where the sentence encoder fails, distances are left out.

    Args:
        sets: name -> the edits of each trajectory; a set without any is left out.
        seed: of what is drawn.
        embed: sentences to unit vectors.
    """
    sets = {name: units for name, units in sets.items() if units}
    spread = _spread(sets, embed)
    whole = {}
    for name, units in sets.items():
        edits = [edit for unit in units for edit in unit]
        whole[name] = {
            "num_trajectories": len(units),
            "num_edits": len(edits),
            **measures(edits, spread),
            "verb_nouns": verb_nouns(units),
        }
    return {"whole": whole, "equal": compare(sets, spread, seed) if sets else None}


def verb_nouns(units: Units) -> list[dict[str, Any]]:
    """Return the most frequent root verbs of instructions, each with its most frequent nouns, as shares of all edits.

    As the figure of the paper and of Self-Instruct: 20 verbs with 4 nouns each.
    """
    pairs = Counter((*edit.labels["verbs"], *edit.labels["nouns"]) for unit in units for edit in unit)
    total, verbs = pairs.total(), Counter[str]()
    both = {pair: count for pair, count in pairs.items() if len(pair) == 2}
    for (verb, _), count in both.items():
        verbs[verb] += count
    found = []
    for verb, count in verbs.most_common(NUM_VERBS):
        nouns = Counter({noun: count for (other, noun), count in both.items() if other == verb})
        shares = {noun: count / total for noun, count in nouns.most_common(NUM_NOUNS)}
        found.append({"verb": verb, "share": count / total, "nouns": shares})
    return found


def _spread(sets: Mapping[str, Units], embed: Embed) -> Spread | None:
    """Return how far apart all instructions are, None where that cannot be had."""
    texts = sorted({edit.instruction for units in sets.values() for unit in units for edit in unit})
    if not texts:
        return None
    if len(texts) > MAX_EMBEDDED:
        log.warning("diversity without distances: more than %d different instructions", MAX_EMBEDDED)
        return None
    try:
        return Spread.of(texts, embed(texts))
    except (InfrastructureError, ValueError) as error:
        log.warning("diversity without distances: %s", error)
        return None


def table(found: Mapping[str, Any]) -> str:
    """Return what `diversity` found as Markdown: the sets as they stand, then at equal numbers, then differences."""
    whole, equal = found["whole"], found["equal"]
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


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command `diversity` to those of `python -m rollout.dataset`."""
    text = "measure how diverse the edits of collections are"
    command = commands.add_parser("diversity", help=text, description=text)
    command.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="trajectories; compared to the first")
    command.add_argument("--seed", type=int, default=0, help="of what is drawn (default: %(default)s)")
    command.add_argument("--json", action="store_true", help="print JSON in place of tables")
    command.set_defaults(run=main)


def main(options: argparse.Namespace) -> None:
    """Print the diversity of the folders of `options`.

    Raises:
        FileNotFoundError, CorruptRecord, ValueError: where a folder does not read, or is given twice.
    """
    if len(set(options.folders)) < len(options.folders):
        raise ValueError("a folder is given twice; give each once, the one to compare to first")
    found = diversity({str(folder): read_units(folder) for folder in options.folders}, options.seed)
    print(json.dumps(found, indent=1, ensure_ascii=False) if options.json else table(found))
