"""What one edit has that others may share: its words, recipes, diff, script, and the workspace it leads to.

Files go by other names in every episode, and so nothing here counts them: a name in a text becomes a fixed word, and
the contents of scripts are compared with the names of the data put right.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rollout.dataset.words import normal_form, verb_and_noun
from rollout.scripted.recipes import recognise
from rollout.storage.blob_store import BlobStore
from rollout.types import Step, Trajectory
from tasks.action import is_edit

BLOBS = "blobs"
SAVED = "Saved "
FILE_NAME = re.compile(r"[\w-]+\.(?:py|csv)\b")
DIFF_LINE = re.compile(r"[+-]|\[\d+ characters cut\]$")

# Returns a script's identity of its blob's hash and the trajectory whose names it uses.
Identify = Callable[[str, Trajectory], str]


@dataclass(frozen=True)
class Edit:
    """One edit of a trajectory.

    Attributes:
        instruction: its instruction in normal form.
        labels: field -> what this edit has of it; nothing where the edit was refused, two where it asks for two.
    """

    instruction: str
    labels: Mapping[str, tuple[str, ...]]


def store_beside(folder: Path) -> BlobStore | None:
    """Return the store of the run that a folder of trajectories lies in, None where there is none."""
    found = [parent / BLOBS for parent in folder.absolute().parents if (parent / BLOBS).is_dir()]
    return BlobStore(found[0]) if found else None


def edits_by_trajectory(trajectories: Iterable[Trajectory], store: BlobStore | None) -> list[list[Edit]]:
    """Return the edits of each trajectory that has any, in the order of their ids, so that files' order is none.

    Args:
        trajectories: of one collection.
        store: where their files are; without it nothing is known about scripts and workspaces, which stay out.

    Raises:
        CorruptRecord: where a script is not in the store.
    """
    identify = None if store is None else _identities(store)
    found = {
        one.trajectory_id: [_edit(step, one, identify) for step in one.steps if is_edit(step.action)]
        for one in trajectories
    }
    return [edits for _, edits in sorted(found.items()) if edits]


def _edit(step: Step, trajectory: Trajectory, identify: Identify | None) -> Edit:
    instruction = step.arguments["edit_instruction"]
    verb, noun = verb_and_noun(instruction)
    diff = diff_of(step.feedback.text)
    labels = {
        "instructions": (normal_form(instruction),),
        "verbs": (verb,) if verb else (),
        "nouns": (noun,) if noun else (),
        "pairs": (f"{verb} {noun}",) if verb and noun else (),
        "recipes": tuple(recognise(instruction)),
        "diffs": (diff,) if diff else (),
    }
    if identify is not None and trajectory.steps[0].before.files:  # an imported one has no workspaces
        first = set(trajectory.steps[0].before.files.values())
        new = {name: blob for name, blob in step.after.files.items() if blob not in first}
        saved = step.arguments["save_name"]
        labels["scripts"] = (identify(new[saved], trajectory),) if diff and saved in new else ()
        reached = sorted({identify(blob, trajectory) for blob in new.values()})
        labels["workspaces"] = (" ".join((trajectory.task, *reached)),)
    return Edit(normal_form(instruction), labels)


def diff_of(feedback: str) -> str:
    """Return the diff in the feedback to an edit, without file names; `` where nothing was saved.

    Of one that was cut it is the part before the cut and how much that left out.
    """
    first, *lines = feedback.split("\n")
    if not first.startswith(SAVED):
        return ""
    kept = []
    for line in lines:
        if not DIFF_LINE.match(line):
            break
        kept.append(line)
    return FILE_NAME.sub("FILE", "\n".join(kept))


def _identities(store: BlobStore) -> Identify:
    """Return what tells scripts apart: the hash of their text with the episode's names for the data taken out."""

    @cache
    def of(digest: str, train_file: str, test_file: str) -> str:
        text = store.get(digest).decode("utf-8", "replace")
        for name, plain in ((train_file, "TRAIN"), (test_file, "TEST")):
            text = text.replace(name, plain)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    return lambda digest, trajectory: of(digest, trajectory.names.train_file, trajectory.names.test_file)
