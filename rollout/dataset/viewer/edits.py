"""What an edit did to a script, whole: the agent reads a shortened diff without context."""

import difflib

from rollout.environment.paths import Refused, plain_name
from rollout.errors import CorruptRecord
from rollout.storage.blob_store import BlobStore
from rollout.types import Step
from tasks.action import is_edit
from tasks.feedback import shorten

MAX_SCRIPT_BYTES = 1 << 18  # of a longer one no diff is made
MAX_DIFF = 20_000  # characters


def whole_edit(step: Step, store: BlobStore) -> str | None:
    """Return the unified diff of the edit of a step, None where it was none or its scripts are not stored."""
    if not is_edit(step.action):
        return None
    try:
        source, saved = plain_name(step.arguments["script_name"]), plain_name(step.arguments["save_name"])
        if saved not in step.after.files or step.after.files[saved] == step.before.files.get(saved):
            return None
        old, new = _lines(store, step.before.files.get(source)), _lines(store, step.after.files[saved])
    except (Refused, CorruptRecord, UnicodeDecodeError):
        return None
    if old is None or new is None:
        return None
    return shorten("\n".join(difflib.unified_diff(old, new, source, saved, lineterm="")), MAX_DIFF)


def _lines(store: BlobStore, digest: str | None) -> list[str] | None:
    """Return the lines of a script, none of one that is not there yet, None for one that is too long to compare."""
    if digest is None:
        return []
    return store.get(digest).decode().splitlines() if store.size(digest) <= MAX_SCRIPT_BYTES else None
