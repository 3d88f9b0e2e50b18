"""diversity.json: how diverse the edits of a run's expert and of its policies are."""

import json
import logging
from typing import Any

from mlagent_jax.configuration.schema import Config
from mlagent_jax.run.run_dir import BY_NAME, RunDir
from rollout.dataset.diversity import Embed, diversity
from rollout.dataset.edits import edits_by_trajectory
from rollout.dataset.rarefaction import Units
from rollout.errors import InfrastructureError
from rollout.exploration.embedding import embed_texts
from rollout.storage.atomic_write import write_json
from rollout.storage.blob_store import BlobStore
from rollout.storage.trajectories import iterate_trajectories

FILE = "diversity.json"

log = logging.getLogger(__name__)


def write_diversity(run_dir: RunDir, config: Config, embed: Embed = embed_texts) -> None:
    """Write what `rollout.dataset.diversity.diversity` finds of the run so far; without it where that fails.

    The sets are `sft` and `ppo`, the evaluated policies, and `expert`, the collection. Of the policies only episodes
    on training tasks count, for the expert has no others.
    """
    path = run_dir.path(FILE)
    try:
        write_json(path, diversity(_sets(run_dir, config), config.seed, embed))
    except (InfrastructureError, ValueError, OSError) as error:  # a figure is no reason to end a run
        log.warning("no diversity of edits: %s", error)
        path.unlink(missing_ok=True)


def read_diversity(run_dir: RunDir) -> dict[str, Any] | None:
    """Return what diversity.json says but for its lists of words, None where there is none."""
    path = run_dir.path(FILE)
    if not path.exists():
        return None
    found = json.loads(path.read_text())
    for measured in found["whole"].values():
        del measured["verb_nouns"]
    return found


def _sets(run_dir: RunDir, config: Config) -> dict[str, Units]:
    """Return the edits of every finished group; the first is what the others are compared to."""
    folders = {}
    if run_dir.is_done(BY_NAME["evaluate"], config):
        folders = {name: run_dir.path("evaluate", name) for name in ("sft", "ppo")}
    if run_dir.is_done(BY_NAME["collect"], config):
        folders["expert"] = run_dir.path("trajectories")
    store = BlobStore(run_dir.path("blobs"))
    sets = {}
    for name, folder in folders.items():
        trajectories = (one for one in iterate_trajectories(folder) if one.task in config.tasks.held_in)
        sets[name] = edits_by_trajectory(trajectories, store)
    return sets
