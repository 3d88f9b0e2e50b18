"""diversity.json: the diversity of the edits of a run's expert and policies."""

import json
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from rollout.dataset.diversity import Embed, diversity
from rollout.dataset.edits import RecognizeRecipes, edits_by_trajectory
from rollout.errors import InfrastructureError
from rollout.exploration.embedding import embed_texts
from rollout.storage.atomic_write import write_json
from rollout.storage.blob_store import BlobStore
from rollout.storage.trajectories import iterate_trajectories

FILE = "diversity.json"

log = logging.getLogger(__name__)


def write_diversity(
    path: Path,
    folders: Mapping[str, Path],
    store: BlobStore,
    tasks: Collection[str],
    seed: int,
    recognize: RecognizeRecipes | None = None,
    embed: Embed = embed_texts,
) -> None:
    """Write what `rollout.dataset.diversity.diversity` measures; if that fails, remove the file and log a warning.

    Args:
        path: The file to write.
        folders: Name -> folder of trajectories. The others are compared to the first.
        store: The blobs of their files.
        tasks: The tasks whose trajectories count. The expert has only held-in tasks, so only those are comparable.
        seed: The seed of the draws.
        recognize: Names the recipes that an instruction asks for, if a scripted coder carries it out.
        embed: Returns the unit vectors of sentences.
    """
    try:
        sets = {}
        for name, folder in folders.items():
            trajectories = (each for each in iterate_trajectories(folder) if each.task in tasks)
            sets[name] = edits_by_trajectory(trajectories, store, recognize)
        write_json(path, diversity(sets, seed, embed))
    except (InfrastructureError, ValueError, OSError) as error:  # a statistic must not end a run
        log.warning("no diversity of edits: %s", error)
        path.unlink(missing_ok=True)


def read_diversity(path: Path) -> dict[str, Any] | None:
    """Return the content of diversity.json without its lists of words, None if there is no such file."""
    if not path.exists():
        return None
    figures = json.loads(path.read_text())
    for measured in figures["whole"].values():
        del measured["verb_nouns"]
    return figures
