"""The figures of the coder's benchmark: what is true of each edit, shares with intervals, and the tables."""

import ast
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any, get_args

import numpy as np

from benchmarks.coder_edits import Pair
from benchmarks.figures import format_interval, table, wilson
from rollout.endpoint import Answer
from rollout.endpoint.edit_answer import apply_answer, check_edit
from rollout.endpoint.edit_blocks import CannotApply
from rollout.endpoint.script_checks import syntax_error
from rollout.options import EditFormat
from tasks.task import SUBMISSION

FORMATS: tuple[EditFormat, ...] = get_args(EditFormat)
NUM_CONCURRENT = 8
NUM_RESAMPLES = 2000
# Shares of the first answers, and of the edits after a second answer if the first could not be used.
SHARES = {
    "applies": "first answer applies",
    "parses": "… and parses",
    "changes": "… and changes the script",
    "usable": "… and defines what it uses",
    "made": "edit is made, with a retry",
    "runs": "… and runs, with a valid submission",
    "asked": "… and does what was asked",
}


def judge(pair: Pair, edit_format: EditFormat, record: Mapping[str, Any], ran: bool) -> dict[str, bool]:
    """Return what is true of one edit, a value for each key of `SHARES`."""
    applied, usable = None, False
    first = Answer(**record["answers"][0]).visible_text if record["answers"] else ""
    try:
        applied = apply_answer(first, pair.source, edit_format)
        check_edit(pair.source, applied)
        usable = True
    except CannotApply:
        pass
    parses = applied is not None and not syntax_error(applied)
    made = record["source"] is not None
    return {
        "applies": applied is not None,
        "parses": parses,
        "changes": parses and applied != pair.source,
        "usable": usable,
        "made": made,
        "runs": ran,
        "asked": ran and made and pair.edit.done(_submitted(record["source"])),
    }


def _submitted(source: str) -> ast.Module:
    """Return a script up to the statement that writes the submission, because what follows has no effect on it."""
    tree = ast.parse(source)
    writes = [i for i, statement in enumerate(tree.body) if SUBMISSION in ast.unparse(statement)]
    return ast.Module(tree.body[: writes[-1] + 1] if writes else tree.body, [])


def summarize(
    pairs: Sequence[Pair], edits: Mapping[str, Mapping[str, Mapping[str, Any]]], tokens: Mapping[str, Mapping[str, int]]
) -> dict[str, Any]:
    """Return the figures of one model.

    Args:
        pairs: The pairs.
        edits: Format -> pair -> what was recorded and judged of it.
        tokens: Format -> the figures of its endpoint.
    """
    formats = {}
    for name, by_pair in edits.items():
        rows = [by_pair[pair.name] for pair in pairs]
        formats[name] = {
            "shares": {key: wilson(sum(row["is"][key] for row in rows), len(rows)) for key in SHARES},
            "retried": sum(len(row["answers"]) > 1 for row in rows),
            "seconds_per_edit": round(mean(row["seconds"] for row in rows), 2),
            "input_tokens_per_edit": round(tokens[name]["input_tokens"] / len(rows), 1),
            "output_tokens_per_edit": round(tokens[name]["output_tokens"] / len(rows), 1),
            "cut": tokens[name]["cut"],
        }
    first, second = FORMATS
    difference = {
        key: _paired([edits[first][p.name]["is"][key] - edits[second][p.name]["is"][key] for p in pairs])
        for key in SHARES
    }
    by_edit = {
        edit: {name: sum(edits[name][p.name]["is"]["asked"] for p in pairs if p.edit.name == edit) for name in FORMATS}
        | {"pairs": sum(p.edit.name == edit for p in pairs)}
        for edit in sorted({pair.edit.name for pair in pairs})
    }
    return {"num_pairs": len(pairs), "formats": formats, f"{first}_minus_{second}": difference, "by_edit": by_edit}


def _paired(differences: Sequence[int]) -> dict[str, float]:
    """Return the mean of paired differences, and a 95 % bootstrap interval."""
    values = np.array(differences)
    drawn = np.random.default_rng(0).integers(0, len(values), (NUM_RESAMPLES, len(values)))
    low, high = np.percentile(values[drawn].mean(1), (2.5, 97.5))
    return {"mean": round(float(values.mean()), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def markdown(models: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the figures of all models as text and tables."""
    rows: list[list[object]] = [["", *(f"{model}, {name}" for model in models for name in FORMATS)]]
    cells = [found["formats"][name] for found in models.values() for name in FORMATS]
    for key, title in SHARES.items():
        rows.append([title, *(_share(each["shares"][key]) for each in cells)])
    rows.append(["edits with a retry", *(each["retried"] for each in cells)])
    rows.append(["tokens written per edit", *(f"{each['output_tokens_per_edit']:.0f}" for each in cells)])
    rows.append(["tokens read per edit", *(f"{each['input_tokens_per_edit']:.0f}" for each in cells)])
    rows.append(["seconds per edit", *(f"{each['seconds_per_edit']:.1f}" for each in cells)])
    first, second = FORMATS
    paired: list[list[object]] = [["", *models]]
    for key, title in SHARES.items():
        differences = [found[f"{first}_minus_{second}"][key] for found in models.values()]
        paired.append([title, *map(format_interval, differences)])
    edits: list[list[object]] = [["edit", *(f"{model}, {name}" for model in models for name in FORMATS)]]
    for edit in sorted({edit for found in models.values() for edit in found["by_edit"]}):
        counts = [found["by_edit"].get(edit) for found in models.values()]
        edits.append(
            [edit, *("" if each is None else f"{each[f]} of {each['pairs']}" for each in counts for f in FORMATS)]
        )
    made = "\n".join(
        f"- {model}: {found['num_pairs']} pairs, commit {found['commit']}, {found['machine']['cores']} cores of "
        f"{found['machine']['processor']}, by `{found['command']}`"
        for model, found in models.items()
    )
    return f"""# Whole scripts and search/replace blocks

A coder model edits scripts of the bundled tasks: initial ones, and ones that one or two recipes changed, as a person \
would ask for it. Temperature 0, {NUM_CONCURRENT} requests at a time. Shares of all pairs, with Wilson 95 % intervals. \
A second answer is asked for if the first cannot be used. Seconds are those from request to edit, next to the others.

{table(rows)}

## Difference of the formats: {first} − {second}

The mean over pairs, with a 95 % bootstrap interval.

{table(paired)}

## Edits that run and do what was asked

{table(edits)}

{made}"""


def _share(interval: Mapping[str, float]) -> str:
    return f"{interval['mean']:.0%} ({interval['low']:.0%}–{interval['high']:.0%})"
