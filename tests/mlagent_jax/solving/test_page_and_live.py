"""The live table and the page show a search as it is, whatever its texts hold, at any length."""

import io
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from rich.console import Console

from mlagent_jax.solving.finalists import Finalist
from mlagent_jax.solving.live import Progress, best_score, show_progress
from mlagent_jax.solving.page import edit_changes, headline, render_page
from mlagent_jax.solving.result import SolveResult, optimism_of, outcome_counts
from mlagent_jax.tracking.progress import Reporter
from rollout.search.search import Budget
from rollout.search.tree import SearchTree
from rollout.storage.blob_store import BlobStore
from rollout.types import Snapshot, Step
from tasks.feedback import Feedback, Outcome
from tasks.holdout import Comparison, Interval
from tasks.naming import Names
from tasks.task import Instance, Task

HOSTILE = "<script>alert(1)</script> [bold]& use trees"


@dataclass
class Made:
    """A search made of random scores, and its result."""

    tree: SearchTree
    store: BlobStore
    result: SolveResult
    best: Finalist


def make_task(folder: Path, direction: str = "minimize") -> Task:
    return Task(
        name="flats",
        kind="tabular-regression",
        split="held_in",
        metric="rmse" if direction == "minimize" else "accuracy",
        direction=direction,  # type: ignore[arg-type]
        m_init=1.0,
        validation_init=1.0,
        m_best=0.0,
        m_best_source="",
        problem="",
        script="",
        public=folder,
        private=folder,
    )


def grow(tree: SearchTree, store: BlobStore, num_actions: int) -> None:
    """Add actions: edits of the script before, of which every fifth fails, and every third goes back to the root."""
    for number in range(1, num_actions + 1):
        parent = tree.root if number % 3 == 1 else tree.nodes[-1]
        name, score = f"s{number}.py", round(1 - 0.4 * (number * 7 % 10) / 10, 3)
        source = parent.script or tree.instance.names.script
        fails = number % 5 == 0
        files = {**parent.snapshot.files, name: store.put(f"x = {number}\n".encode())}
        feedback = Feedback(
            Outcome.ERROR if fails else Outcome.EDIT,
            f"Saved {name}",
            None if fails else score,
            None if fails else score,
        )
        best = parent.snapshot.best_score if fails else min(score, parent.snapshot.best_score)
        after = replace(parent.snapshot, files=files, best_score=best)
        arguments = {"script_name": source, "edit_instruction": f"{HOSTILE} {number}", "save_name": name}
        step = Step("", "Edit Script (AI)", arguments, feedback, parent.snapshot, after, 0.5)
        tree.add(parent, "problem", step, 0, float(number))


@pytest.fixture
def make(tmp_path: Path):
    def make_search(num_actions: int, **changes: object) -> Made:
        store = BlobStore(tmp_path / "blobs")
        names = Names("maple", "birch_train.csv", "birch_test.csv", "cedar.py")
        start = Snapshot({"cedar.py": store.put(b"x = 0\n")}, 1.0, None, "cedar.py", 1.0)
        tree = SearchTree(Instance(make_task(tmp_path), names), "problem", start)
        grow(tree, store, num_actions)
        node = min(tree.nodes, key=lambda each: each.snapshot.best_score)
        best = Finalist(node, node.script, "import pandas  # <b>\n", 0.6, 0.65, b"")
        report = Comparison(Interval(0.66, 0.6, 0.7), Interval(1.0, 0.9, 1.1), Interval(-0.34, -0.4, -0.3), 75)
        result = SolveResult(
            task="flats",
            metric="rmse",
            direction="minimize",
            search="tree",
            agent="scripted",
            coder="scripted",
            end="actions",
            num_actions=num_actions,
            num_scripts=num_actions,
            outcomes=outcome_counts(tree),
            search_seconds=20.0,
            seconds=30.0,
            best=tmp_path,
            script="train.py",
            files=("train.py",),
            validation=0.6,
            choice=0.65,
            initial={"validation": 1.0, "choice": 1.02},
            report=report,
            optimism=optimism_of("minimize", 0.6, report),
            finalists=({"node": 0, "script": HOSTILE, "validation": 1.0, "choice": 1.0, "is_delivered": True},),
            endpoints={"coder": {"input_tokens": 1200, "output_tokens": 34, "dollars": 0.5}},
            notes=(HOSTILE,),
        )
        return Made(tree, store, replace(result, **changes), best)

    return make_search


@pytest.mark.parametrize("num_actions", [1, 20, 500])
def test_a_page_of_any_length_lists_every_action_and_runs_no_text_of_the_agent(make, num_actions):
    made = make(num_actions)
    page = render_page(made.result, made.tree, made.store, made.best)
    assert page.count("<details class=") == num_actions
    assert "<script" not in page and "<b>\n" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; [bold]&amp; use trees" in page
    assert "1,234" in page and "$0.50" in page
    assert len(page) < 400_000 + 3_000 * num_actions
    links = re.findall(r"https?://[^\"' )<]+", page)
    assert links == []


def test_the_headline_gives_a_gain_without_a_sign_and_says_what_may_be_chance(make):
    made = make(3)
    said = headline(made.result)
    assert "scores 0.66 (95 % interval 0.6 to 0.7), the initial one 1: better by 0.34 (0.3 to 0.4)." in said
    unsure = replace(made.result.report, difference=Interval(-0.1, -0.3, 0.1))
    assert "better by 0.1 (\u22120.3 to 0.1), which may be chance." in headline(replace(made.result, report=unsure))
    worse = replace(made.result.report, difference=Interval(0.2, 0.1, 0.3))
    assert "worse by 0.2 (0.1 to 0.3)." in headline(replace(made.result, report=worse))
    assert "each predicted without it" in headline(replace(made.result, is_cross_validated=True))
    assert "The same score chose it" in headline(replace(made.result, report=None))
    assert made.result.optimism == pytest.approx(0.06)


def test_changes_are_relative_to_the_edited_script(make):
    made = make(4)
    changes = {row["number"]: row["change"] for row in edit_changes(made.tree)}
    scores = {node.number: node.step.feedback.validation for node in made.tree.nodes[1:]}
    assert changes[1] == pytest.approx(scores[1] - 1.0)
    assert changes[2] == pytest.approx(scores[2] - scores[1])
    assert changes[4] == pytest.approx(scores[4] - 1.0)
    assert [row["number"] for row in edit_changes(made.tree)][0] == min(changes, key=lambda number: changes[number])


def test_an_edit_that_makes_a_known_script_of_the_same_one_is_listed_once(make):
    made = make(4)
    first = made.tree.nodes[1]
    made.tree.add(made.tree.root, "problem", first.step, 1, 9.0)
    assert sorted(row["number"] for row in edit_changes(made.tree)) == [1, 2, 3, 4]


def test_the_live_table_shows_the_newest_actions_and_what_is_left(make):
    made = make(9)
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120, color_system=None)
    with show_progress(
        made.tree, Budget(60, 300.0), Reporter(console), lambda: "1,234 tokens, $0.50 of $2.00"
    ) as shown:
        shown.update(made.tree.nodes[-1])
    text = out.getvalue()
    assert f"9 of 60 actions · best validation rmse {best_score(made.tree):.4f} (initial 1.0000)" in text
    assert "left · 1,234 tokens, $0.50 of $2.00" in text
    assert "<script>alert(1)</script> [bold]& use trees 9" in text
    assert "use trees 2" not in text


def test_elsewhere_there_are_lines_and_no_table(make, caplog):
    made = make(9)
    out = io.StringIO()
    with caplog.at_level("INFO"), show_progress(made.tree, Budget(9, 300.0), Reporter(Console(file=out))) as shown:
        assert isinstance(shown, Progress)
        shown.update(made.tree.nodes[-1])
    assert out.getvalue() == "" and "9 of 9 actions" in caplog.text
