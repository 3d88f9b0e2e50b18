"""diversity.json: how diverse the edits of a run's expert and of its policies are."""

import json
import logging
from collections.abc import Collection
from typing import Any

from rollout.dataset.diversity import Embed, diversity
from rollout.dataset.edits import edits_by_trajectory
from rollout.dataset.rarefaction import Units
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
    embed: Embed = embed_texts,
) -> None:
    """Write what `rollout.dataset.diversity.diversity` finds of the run so far; without it where that fails.

    The sets are `sft` and `ppo`, the evaluated policies, and `expert`, the collection. Of the policies only episodes
    on training tasks count, for the expert has no others.
    """
    path = layout.diversity
    try:
        write_json(path, diversity(_sets(layout, held_in, is_collected, is_evaluated), seed, embed))
    except (InfrastructureError, ValueError, OSError) as error:  # a figure is no reason to end a run
        log.warning("no diversity of edits: %s", error)
        path.unlink(missing_ok=True)


def read_diversity(layout: RunLayout) -> dict[str, Any] | None:
    """Return what diversity.json says but for its lists of words, None where there is none."""
    path = layout.diversity
    if not path.exists():
        return None
    found = json.loads(path.read_text())
    for measured in found["whole"].values():
        del measured["verb_nouns"]
    return found


def _sets(layout: RunLayout, held_in: Collection[str], is_collected: bool, is_evaluated: bool) -> dict[str, Units]:
    """Return the edits of every finished group; the first is what the others are compared to."""
    folders = {name: layout.evaluated(name) for name in ("sft", "ppo")} if is_evaluated else {}
    if is_collected:
        folders["expert"] = layout.trajectories
    store = BlobStore(layout.blobs)
    sets = {}
    for name, folder in folders.items():
        trajectories = (one for one in iterate_trajectories(folder) if one.task in held_in)
        sets[name] = edits_by_trajectory(trajectories, store)
    return sets
