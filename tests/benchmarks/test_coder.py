"""The pairs and the judgment of the coder's benchmark."""

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.coder import TASKS
from benchmarks.coder_edits import EDITS, Edit, draw_pairs
from benchmarks.coder_figures import SHARES, judge, markdown, summarize
from benchmarks.figures import wilson
from tasks.registry import find
from tasks.task import Task

# An edit -> a script that has its property, and a similar one that does not.
EXAMPLES = {
    "scale": ("m = make_pipeline(StandardScaler(), Lasso())", "from x import StandardScaler"),
    "forest": ("m = RandomForestRegressor(n_estimators=150)", "m = RandomForestRegressor(n_estimators=100)"),
    "alpha": ("m = Lasso(alpha=0.1)", "m = make_pipeline(Lasso(alpha=0.1), Ridge(alpha=2))"),
    "components": ("m = PCA(3)", "m = PCA(n_components=30)"),
    "all_columns": ("X = t.select_dtypes('number')", "X = t.select_dtypes('number'); Z = t[['a', 'b', 'c']]"),
    "medians": ("X = X.fillna(X.median())", "X = X.fillna(X.median()).fillna(0)"),
    "log_target": ("m.fit(X, np.log1p(y)); np.expm1(p)", "m.fit(X, np.log1p(y))"),
    "count_rows": ("print(s); print(len(t))", "print(len(t))"),
    "bigrams": ("v = CountVectorizer(ngram_range=(1, 2))", "v = CountVectorizer(ngram_range=(2, 2))"),
    "stratify": ("train_test_split(X, y, stratify=y)", "train_test_split(X, y)"),
    "voting": ("VotingClassifier([LogisticRegression()])", "VotingClassifier([Lasso()])"),
    "cross_validation": ("print(cross_val_score(m, X, y))", "cross_val_score(m, X, y)"),
}


def bundled(name: str) -> Task:
    """Return a bundled task without data, which its script does not need to be edited."""
    entry = find(name)
    problem, script = ((entry.folder / name).read_text() for name in ("problem.md", "train.py"))
    texts = ("", problem, script)
    return Task(name, entry.kind, entry.split, entry.metric, "maximize", 0.5, 0.5, 0.9, *texts, Path(), Path())


def test_the_first_pairs_of_a_longer_list_are_those_of_a_shorter_one_and_can_be_edited() -> None:
    tasks = [bundled(name) for name in TASKS]
    pairs = draw_pairs(tasks, 60, 0)
    names = [pair.name for pair in pairs]
    assert names[:24] == [pair.name for pair in draw_pairs(tasks, 24, 0)] and len({*names}) == 60
    for pair in pairs:
        assert pair.edit.fits(pair.instance.task.kind, pair.source)
        assert pair.instance.names.train_file in pair.source
    assert {len(pair.recipes) for pair in pairs} == {0, 1, 2}
    assert {pair.edit.name for pair in pairs} == {edit.name for edit in EDITS}


@pytest.mark.parametrize("edit", [edit for edit in EDITS if edit.name in EXAMPLES], ids=lambda edit: edit.name)
def test_a_property_tells_an_edit_from_a_similar_one(edit: Edit) -> None:
    has, lacks = EXAMPLES[edit.name]
    assert edit.done(ast.parse(has)) and not edit.done(ast.parse(lacks))


def test_an_edit_counts_if_it_ran_and_has_the_property_before_the_submission() -> None:
    (pair,) = draw_pairs([bundled("diamond_price")], 1, 0)
    pair = replace(pair, edit=next(edit for edit in EDITS if edit.name == "neighbors"))
    good = pair.source.replace("n_neighbors=50", "n_neighbors=15")
    after = f"{pair.source}again = KNeighborsRegressor(n_neighbors=15)\n".replace("(n_neighbors=50)", "()")

    def judged(source: str | None, answer: str, ran: bool = True) -> dict[str, bool]:
        record = {"source": source, "answers": [{"text": answer, "end": "stop"}]}
        return judge(pair, "script", record, ran)

    assert all(judged(good, f"```python\n{good}```").values())
    assert not judged(after, f"```python\n{after}```")["asked"]
    assert not judged(good, f"```python\n{good}```", ran=False)["asked"]
    undefined = judged(None, f"```python\n{good}nothing()\n```", ran=False)
    assert [key for key, value in undefined.items() if value] == ["applies", "parses", "changes"]
    assert not any(judged(None, "No.", ran=False).values())


def test_figures_are_shares_of_pairs_and_their_paired_difference() -> None:
    pairs = draw_pairs([bundled("diamond_price"), bundled("digit_images")], 4, 0)

    def record(number: int, is_true: bool) -> dict[str, Any]:
        return {"seconds": 2.0 * number, "answers": [{}] * (1 + number % 2), "is": dict.fromkeys(SHARES, is_true)}

    edits = {
        "blocks": {pair.name: record(i, True) for i, pair in enumerate(pairs)},
        "script": {pair.name: record(i, i == 0) for i, pair in enumerate(pairs)},
    }
    tokens = {name: {"input_tokens": 400, "output_tokens": 80, "cut": 1} for name in edits}
    found = summarize(pairs, edits, tokens)
    assert found["formats"]["script"]["shares"]["made"]["mean"] == 0.25
    assert found["formats"]["script"] | {"shares": 0} == {
        "shares": 0,
        "retried": 2,
        "seconds_per_edit": 3.0,
        "input_tokens_per_edit": 100.0,
        "output_tokens_per_edit": 20.0,
        "cut": 1,
    }
    difference = found["blocks_minus_script"]["made"]
    assert difference["mean"] == 0.75 and difference["low"] < 0.75 < difference["high"]
    about = {"commit": "c", "machine": {"cores": 2, "processor": "p"}, "command": "python", **found}
    text = markdown({"tiny": about, "small": about})
    assert "| edit is made, with a retry | 100% (51%–100%) | 25% (5%–70%) |" in text


def test_wilson_intervals_are_those_of_the_literature() -> None:
    assert wilson(0, 10) == {"mean": 0.0, "low": 0.0, "high": 0.2775}
    assert wilson(3, 23) == {"mean": 0.1304, "low": 0.0454, "high": 0.3213}
    assert wilson(10, 10) == {"mean": 1.0, "low": 0.7225, "high": 1.0}
    assert wilson(15, 20) == {"mean": 0.75, "low": 0.5313, "high": 0.8881}
