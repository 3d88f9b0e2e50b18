"""How well a policy reads its context: whether it repeats what only the context can tell it."""

from collections.abc import Iterable, Mapping

from rollout.types import Snapshot
from tasks import action as grammar
from tasks.action import Invalid, parse_response, split_fields
from tasks.feedback import parse_status_line, score_text

FACTS = ("file_exists", "best_script", "best_score")


def read_grounding(response: str, snapshot: Snapshot) -> dict[str, bool | None]:
    """Return which facts of the state a response repeats rightly; None where it had none to repeat.

    `file_exists`: the file the action works on is in the workspace; None for an action that needs none, for a file in
    a folder, whose files no snapshot names, and for a response without an action. `best_script` and `best_score`: the
    status field says `Best so far: NAME SCORE` as the last feedback did; None only for a response without that field.
    """
    action = parse_response(response)
    file_exists = None
    if not isinstance(action, Invalid) and action.spec.input_file is not None:
        name = action.arguments[action.spec.input_file].strip().removeprefix("./")
        folder, slash, _ = name.partition("/")
        file_exists = None if slash and f"{folder}/" in snapshot.files else name in snapshot.files
    fields = split_fields(response)
    if isinstance(fields, Invalid):
        return {"file_exists": file_exists, "best_script": None, "best_score": None}
    script, score = parse_status_line(fields[grammar.STATUS]) or ("", "")
    return {
        "file_exists": file_exists,
        "best_script": script == snapshot.best_script,
        "best_score": score == score_text(snapshot.best_score),
    }


def grounding_shares(readings: Iterable[Mapping[str, bool | None]]) -> dict[str, float]:
    """Return for each fact the share of responses that have it right, and `num_<fact>`, how many had it to repeat."""
    listed = list(readings)
    shares: dict[str, float] = {}
    for fact in FACTS:
        known = [bool(reading[fact]) for reading in listed if reading[fact] is not None]
        if known:
            shares[fact] = sum(known) / len(known)
        shares[f"num_{fact}"] = len(known)
    return shares
