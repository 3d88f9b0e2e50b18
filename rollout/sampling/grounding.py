"""Measure how well a response is grounded in its state: whether it repeats facts that only the state contains."""

from collections.abc import Iterable, Mapping

from rollout.types import Snapshot
from tasks.action import Invalid
from tasks.feedback import parse_status_line, score_text
from tasks.response import STATUS, ParsedResponse

FACTS = ("file_exists", "best_script", "best_score")


def read_grounding(response: ParsedResponse, snapshot: Snapshot) -> dict[str, bool | None]:
    """Return whether a response repeats each fact correctly, or None for a fact that it does not refer to.

    `file_exists`: the file that the action works on is in the workspace. None for an action that needs no file, for a
    file in a folder (a snapshot does not list the files of folders), and for a response without an action.
    `best_script` and `best_score`: the status field says `Best so far: NAME SCORE` as the last feedback did. None only
    if the response does not have its fields.
    """
    action = response.action
    file_exists = None
    if not isinstance(action, Invalid) and action.spec.input_file is not None:
        name = action.arguments[action.spec.input_file].strip().removeprefix("./")
        folder, slash, _ = name.partition("/")
        file_exists = None if slash and f"{folder}/" in snapshot.files else name in snapshot.files
    if isinstance(response.fields, Invalid):
        return {"file_exists": file_exists, "best_script": None, "best_score": None}
    script, score = parse_status_line(response.fields[STATUS]) or ("", "")
    return {
        "file_exists": file_exists,
        "best_script": script == snapshot.best_script,
        "best_score": score == score_text(snapshot.best_score),
    }


def grounding_shares(readings: Iterable[Mapping[str, bool | None]]) -> dict[str, float]:
    """Return the share of responses that repeat each fact correctly, among those that refer to it.

    `num_<fact>` is the number of responses that refer to it.
    """
    listed = list(readings)
    shares: dict[str, float] = {}
    for fact in FACTS:
        known = [bool(reading[fact]) for reading in listed if reading[fact] is not None]
        if known:
            shares[fact] = sum(known) / len(known)
        shares[f"num_{fact}"] = len(known)
    return shares
