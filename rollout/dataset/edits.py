"""The edits of trajectories as comparable labels: words, categories, diff, script and workspace of each edit.

Files have other names in every episode, so labels leave names out: a file name in a text becomes a fixed word, and the
contents of scripts are compared after the names of the data files are replaced.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rollout.dataset.edit_categories import edit_categories
from rollout.dataset.verb_noun import normal_form, verb_and_noun
from rollout.environment.paths import Refused, plain_name, script_path
from rollout.errors import CorruptRecord
from rollout.storage.blob_store import BlobStore
from rollout.storage.run_layout import RunLayout
from rollout.types import Step, Trajectory
from tasks.action import is_edit
from tasks.feedback import SAVED

FILE_NAME = re.compile(r"[\w-]+\.(?:py|csv)\b")
DIFF_LINE = re.compile(r"[+-]|\[\d+ characters cut\]$")
MAX_SCRIPT_BYTES = 1 << 18  # longer scripts are not compared

# Names the recipes that an instruction asks for, if a scripted coder carries them out.
RecognizeRecipes = Callable[[str], Sequence[str]]
# Returns the identity of a script from the digest of its blob and the trajectory that names its data files.
Identify = Callable[[str, Trajectory], str]

# Categories by the blobs of the script before and after an edit: several statistics of a run ask for them, and
# comparing two scripts takes milliseconds.
_categories: dict[tuple[str | None, str], tuple[str, ...]] = {}


@dataclass(frozen=True)
class Edit:
    """One edit of a trajectory.

    Attributes:
        instruction: Its instruction in normal form.
        labels: Field -> the values of this edit. There is none if the edit was refused, and there may be several.
    """

    instruction: str
    labels: Mapping[str, tuple[str, ...]]


def store_beside(folder: Path) -> BlobStore | None:
    """Return the blob store of the run directory around a folder of trajectories, None if there is none."""
    folders = (RunLayout(parent).blobs for parent in folder.absolute().parents)
    return next((BlobStore(blobs) for blobs in folders if blobs.is_dir()), None)


def edits_by_trajectory(
    trajectories: Iterable[Trajectory], store: BlobStore | None, recognize: RecognizeRecipes | None = None
) -> list[list[Edit]]:
    """Return the edits of each trajectory that has any, sorted by trajectory id.

    Args:
        trajectories: The trajectories of one collection.
        store: The blobs of their files. Without it, the categories, scripts and workspaces of edits are left out.
        recognize: A function that names the recipes of an instruction; if None, recipes are left out.

    Raises:
        CorruptRecord: If a script is not in the store.
    """
    identify = None if store is None else _identities(store)
    edits = {
        trajectory.trajectory_id: [
            _edit(step, trajectory, store, identify, recognize) for step in trajectory.steps if is_edit(step.action)
        ]
        for trajectory in trajectories
    }
    return [each for _, each in sorted(edits.items()) if each]


def scripts_of(step: Step, store: BlobStore) -> tuple[str, str] | None:
    """Return the script before and after an edit, None if nothing was saved or a script is not stored.

    A script that did not exist before the edit is empty; one that is too long to compare counts as not stored.
    """
    digests = _digests_of(step)
    if digests is None:
        return None
    try:
        before, after = (_text(store, digest) for digest in digests)
    except (CorruptRecord, UnicodeDecodeError):
        return None
    return None if before is None or after is None else (before, after)


def categories_of(step: Step, store: BlobStore) -> tuple[str, ...]:
    """Return the categories of the edit of a step, none if nothing was saved or its scripts are not stored."""
    digests = _digests_of(step)
    if digests is None:
        return ()
    if digests not in _categories:
        scripts = scripts_of(step, store)
        if scripts is None:
            return ()
        _categories[digests] = edit_categories(*scripts)
    return _categories[digests]


def _digests_of(step: Step) -> tuple[str | None, str] | None:
    """Return the blobs of the script before and after an edit, None if nothing was saved."""
    if not is_edit(step.action):
        return None
    try:
        source = plain_name(script_path(step.arguments["script_name"]))
        saved = plain_name(script_path(step.arguments["save_name"]))
    except Refused:
        return None
    after = step.after.files.get(saved)
    return None if after is None or after == step.before.files.get(saved) else (step.before.files.get(source), after)


def diff_of(feedback: str) -> str:
    """Return the diff in the feedback to an edit, without file names; empty if nothing was saved.

    A diff that was cut ends with a line that states how much is missing.
    """
    first, *lines = feedback.split("\n")
    if not first.startswith(SAVED):
        return ""
    diff = []
    for line in lines:
        if not DIFF_LINE.match(line):
            break
        diff.append(line)
    return FILE_NAME.sub("FILE", "\n".join(diff))


def _edit(
    step: Step,
    trajectory: Trajectory,
    store: BlobStore | None,
    identify: Identify | None,
    recognize: RecognizeRecipes | None,
) -> Edit:
    instruction = step.arguments["edit_instruction"]
    verb, noun = verb_and_noun(instruction)
    diff = diff_of(step.feedback.text)
    labels: dict[str, tuple[str, ...]] = {
        "instructions": (normal_form(instruction),),
        "verbs": (verb,) if verb else (),
        "nouns": (noun,) if noun else (),
        "pairs": (f"{verb} {noun}",) if verb and noun else (),
        "diffs": (diff,) if diff else (),
    }
    if recognize is not None:
        labels["recipes"] = tuple(recognize(instruction))
    if store is not None and identify is not None and trajectory.steps[0].before.files:  # imported ones have no files
        first = set(trajectory.steps[0].before.files.values())
        new = {name: blob for name, blob in step.after.files.items() if blob not in first}
        saved = step.arguments["save_name"]
        labels["categories"] = categories_of(step, store) if diff else ()
        labels["scripts"] = (identify(new[saved], trajectory),) if diff and saved in new else ()
        contents = sorted({identify(blob, trajectory) for blob in new.values()})
        labels["workspaces"] = (" ".join((trajectory.task, *contents)),)
    return Edit(normal_form(instruction), labels)


def _text(store: BlobStore, digest: str | None) -> str | None:
    """Return the text of a script, empty for a new one, None for one that is too long to compare."""
    if digest is None:
        return ""
    return store.get(digest).decode() if store.size(digest) <= MAX_SCRIPT_BYTES else None


def _identities(store: BlobStore) -> Identify:
    """Return a function that hashes a script after replacing the names of its data files."""

    @cache
    def identity(digest: str, train_file: str, test_file: str) -> str:
        text = store.get(digest).decode("utf-8", "replace")
        for name, plain in ((train_file, "TRAIN"), (test_file, "TEST")):
            text = text.replace(name, plain)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    return lambda digest, trajectory: identity(digest, trajectory.names.train_file, trajectory.names.test_file)
