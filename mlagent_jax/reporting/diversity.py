"""diversity.json: the diversity of the edits of a run's expert and policies."""

import json
import logging
from collections.abc import Collection
from typing import Any

from rollout.dataset.diversity import Embed, diversity
from rollout.dataset.edits import RecognizeRecipes, edits_by_trajectory
from rollout.errors import InfrastructureError
from rollout.exploration.embedding import embed_texts
from rollout.storage.atomic_write import write_json
from rollout.storage.blob_store import BlobStore
from rollout.storage.run_layout import RunLayout
from rollout.storage.trajectories import iterate_trajectories

log = logging.getLogger(__name__)


def write_diversity(
    layout: RunLayout,
    seed: int,
    held_in: Collection[str],
    is_collected: bool,
    is_evaluated: bool,
    recognize: RecognizeRecipes | None = None,
    embed: Embed = embed_texts,
) -> None:
    """Write the result of `rollout.dataset.diversity.diversity`; if that fails, remove the file and log a warning.

    The sets are `sft` and `ppo`, the evaluated policies, and `expert`, the collection. The others are compared to the
    first. Only trajectories of held-in tasks count, because the expert has no others.

    Args:
        layout: The paths of the run directory.
        seed: The seed of the draws.
        held_in: The held-in tasks.
        is_collected: Whether the collection is up to date.
        is_evaluated: Whether the evaluation is up to date.
        recognize: A function that names the recipes that an instruction asks for, if a scripted coder carries it out.
        embed: A function that returns the unit vectors of sentences.
    """
    folders = {name: layout.evaluated(name) for name in ("sft", "ppo")} if is_evaluated else {}
    if is_collected:
        folders["expert"] = layout.trajectories
    store = BlobStore(layout.blobs)
    try:
        sets = {}
        for name, folder in folders.items():
            trajectories = (each for each in iterate_trajectories(folder) if each.task in held_in)
            sets[name] = edits_by_trajectory(trajectories, store, recognize)
        write_json(layout.diversity, diversity(sets, seed, embed))
    except (InfrastructureError, ValueError, OSError) as error:  # a statistic must not end a run
        log.warning("no diversity of edits: %s", error)
        layout.diversity.unlink(missing_ok=True)


def read_diversity(layout: RunLayout) -> dict[str, Any] | None:
    """Return the content of diversity.json without its lists of words, None if there is no such file."""
    if not layout.diversity.exists():
        return None
    try:
        figures = json.loads(layout.diversity.read_bytes())
        for measured in figures["whole"].values():
            del measured["verb_nouns"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):  # a statistic must not end a run
        log.warning(
            "%s is damaged, so the reports are without it; the stage evaluate writes it again", layout.diversity
        )
        return None
    return figures
