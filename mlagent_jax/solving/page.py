"""report.html of `mlagent solve`: one static page without scripts and without network access."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlagent_jax.reporting.figures import OUTCOME_NAMES
from mlagent_jax.reporting.page import render, score_text
from mlagent_jax.solving.delivery import delivered_source
from mlagent_jax.solving.figures import search_figures
from mlagent_jax.solving.finalists import Finalist, printed_score
from mlagent_jax.solving.result import ENDS, SolveResult
from rollout.dataset.viewer.script_diff import whole_diff
from rollout.search.tree import Node, SearchTree, instruction_of
from rollout.storage.blob_store import BlobStore
from tasks.action import is_edit

MAX_RANKED = 8  # edits that the page lists as the most and the least helpful
MAX_INDENT = 12  # levels


def render_page(result: SolveResult, tree: SearchTree, store: BlobStore, best: Finalist) -> str:
    """Return the page.

    Args:
        result: The result.
        tree: The search.
        store: The contents of scripts.
        best: The delivered script.
    """
    kept = {node.number for node in best.node.path()}
    changes = edit_changes(tree)
    return render(
        Path(__file__).with_name("page_template.html"),
        result=result,
        headline=headline(result),
        end=ENDS[result.end],
        figures=search_figures(tree, best.node),
        actions=action_records(tree, store, kept),
        helped=changes[:MAX_RANKED],
        hurt=changes[::-1][: min(MAX_RANKED, max(0, len(changes) - MAX_RANKED))],
        outcome_names=OUTCOME_NAMES,
        script=delivered_source(best),
        script_seconds=sum(node.step.seconds for node in tree.nodes if node.step is not None),
    )


def headline(result: SolveResult) -> str:
    """Return the first sentence of the page."""
    if result.report is None:
        return (
            f"The best script scores {score_text(result.choice)}, the initial one "
            f"{score_text(result.initial['choice'])} ({result.metric}). The same score chose it: expect a little less."
        )
    new, old, gap = result.report.score, result.report.initial, result.report.difference
    low, high = sorted((abs(gap.low), abs(gap.high))) if gap.low * gap.high > 0 else (gap.low, gap.high)
    is_better = gap.value > 0 if result.direction == "maximize" else gap.value < 0
    change = "better" if is_better else "worse" if gap.value else "the same"
    change += f" by {score_text(abs(gap.value))} ({score_text(low)} to {score_text(high)})" if gap.value else ""
    sure = ", which may be chance" if gap.low <= 0 <= gap.high and gap.value else ""
    rows = f"{result.report.num_rows:,} rows that neither the agent nor the choice used"
    if result.is_cross_validated:
        rows = f"{result.report.num_rows:,} rows, each predicted without it (cross-validation, a little too good)"
    return (
        f"On {rows}, the delivered script scores "
        f"{score_text(new.value)} (95 % interval {score_text(new.low)} to {score_text(new.high)}), the initial one "
        f"{score_text(old.value)}: {change}{sure}."
    )


def edit_changes(tree: SearchTree) -> list[dict[str, Any]]:
    """Return what each edit changed, the most helpful first: its score minus that of the script that it edited.

    Edits that make the same script of the same one are listed once.
    """
    scores = {tree.instance.names.script: tree.task.validation_init}
    rows, seen = [], set()
    for node in tree.nodes:
        step, score = node.step, printed_score(node)
        if step is None or not is_edit(step.action) or score is None or not node.script:
            continue
        source = step.arguments["script_name"]
        before = _score_before(node, source, scores)
        made = step.before.files.get(source), step.after.files[node.script]
        if before is not None and made not in seen:
            seen.add(made)
            rows.append({"number": node.number, "text": instruction_of(step), "score": score, "change": score - before})
    sign = -1.0 if tree.task.direction == "maximize" else 1.0
    return sorted(rows, key=lambda row: sign * row["change"])


def _score_before(node: Node, script: str, initial: dict[str, float]) -> float | None:
    """Return the score that the edited script printed when it last ran, None if it never did."""
    for earlier in reversed(node.path()[:-1]):
        if earlier.script == script:
            return printed_score(earlier)
    return initial.get(script)


def action_records(tree: SearchTree, store: BlobStore, kept: set[int]) -> list[dict[str, Any]]:
    """Return a record for each action, depth first; several actions from one state are indented below it."""
    records = []
    waiting = [(node, 0) for node in reversed(tree.root.children)]
    while waiting:
        node, indent = waiting.pop()
        step = node.step
        assert step is not None and node.parent is not None, "the root is no action"
        records.append(
            {
                "number": node.number,
                "indent": min(indent, MAX_INDENT),
                "outcome": step.feedback.outcome.value,
                "validation": printed_score(node),
                "is_best": node.snapshot.best_score != node.parent.snapshot.best_score,
                "text": instruction_of(step),
                "diff": _diff_lines(whole_diff(step, store)),
                "feedback": step.feedback.text,
                "is_kept": node.number in kept,
            }
        )
        inner = indent + (len(node.children) > 1)
        waiting += [(child, inner) for child in reversed(node.children)]
    return records


def _diff_lines(diff: str | None) -> Sequence[tuple[str, str]]:
    """Return the lines of a diff with the class of each."""
    kinds = {"+": "added", "-": "removed", "@": "place"}
    return [(kinds.get(line[:1], ""), line) for line in (diff or "").splitlines()[2:]]
