"""The whole diff of an edit; the feedback that the agent reads shows a shortened one without context."""

import difflib

from rollout.dataset.edits import scripts_of
from rollout.environment.paths import plain_name
from rollout.storage.blob_store import BlobStore
from rollout.types import Step
from tasks.feedback import shorten

MAX_DIFF = 20_000  # characters


def whole_diff(step: Step, store: BlobStore) -> str | None:
    """Return the unified diff of the edit of a step, None if nothing was saved or its scripts are not stored."""
    scripts = scripts_of(step, store)
    if scripts is None:
        return None
    before, after = (text.splitlines() for text in scripts)
    script, saved = (plain_name(step.arguments[key]) for key in ("script_name", "save_name"))
    return shorten("\n".join(difflib.unified_diff(before, after, script, saved, lineterm="")), MAX_DIFF)
