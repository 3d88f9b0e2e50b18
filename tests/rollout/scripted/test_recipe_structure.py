"""An edit leaves alone comments, layout, lines it has no business with, and scripts that it does not understand."""

import ast
import inspect
import io
import random
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import libcst as cst
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.utils import all_estimators

import tasks
from rollout.scripted.recipes import RECIPES, Cannot, apply
from rollout.scripted.recipes.nodes import code_of, parse_call, relist, with_keyword

CATALOG, PAPER = (Path(tasks.__file__).parent / folder for folder in ("catalog", "paper"))
# Lines that some recipe rewrites; an edit touches no other, but for imports.
TOUCHED = ("train", "X", "X_test", "model", "score", "SEED", "model.fit")

ODD = '''\
#!/usr/bin/env python
"""A script with a life of its own."""
from __future__ import annotations

import numpy as np, pandas as pd  # two at once
from sklearn.linear_model import (
    LogisticRegression as Linear,  # renamed
    Ridge,
)
from sklearn.preprocessing import StandardScaler; from sklearn.metrics import mean_absolute_error
from sklearn.pipeline import make_pipeline
from sklearn.model_selection import train_test_split

train = pd.read_csv("train.csv")  # rows
test = pd.read_csv("test.csv")
y = train["price"]
X = (
    train[["area", "rooms"]]
    .fillna(0)  # gaps
)
X_test = test[X.columns].fillna(0)

X_fit, X_val, y_fit, y_val = train_test_split(X, y, random_state = 0, test_size = 0.25)
model = make_pipeline(
    # units first
    StandardScaler(),  # scales
    Ridge(
        solver="auto",
        alpha=10.0,  # strong
    ),  # linear
    # nothing follows
)
model.fit(X_fit, y_fit)
score = mean_absolute_error(y_val, model.predict(X_val))
print(f"validation mae: {score:.4f}")  # seen

model.fit(X, y)  # all rows
pd.DataFrame({"house": test["house"], "price": model.predict(X_test)}).to_csv("submission.csv", index=False)
'''


def bundled() -> dict[str, tuple[str, str]]:
    """Returns the kind and the initial script of every bundled task."""
    folders = sorted(path.parent for path in CATALOG.glob("*/task.yaml"))
    return {
        f.name: (yaml.safe_load((f / "task.yaml").read_text())["kind"], (f / "train.py").read_text()) for f in folders
    }


BUNDLED = bundled()
FOREIGN = {path.parent.name: path.read_text() for path in sorted(PAPER.glob("*/train.py"))} | {"odd": ODD}


def some_slow(names: Iterable[str], fast: tuple[str, ...]) -> list[Any]:
    """Returns the names as parameters of a test, all but the `fast` ones marked slow."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in names]


def edits(source: str, names: list[str]) -> Iterator[tuple[str, str]]:
    """Yields the name of every recipe that fits a script, and the script after it."""
    for name in names:
        try:
            yield name, apply(source, [name])
        except Cannot as reason:
            assert 3 <= len(str(reason).split()) <= 20, reason


def comments(source: str) -> list[str]:
    return [t.string for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT]


def statements(source: str) -> list[str]:
    """Returns the top-level statements that are neither imports nor of a kind that recipes write."""
    kept = []
    for node in ast.parse(source).body:
        text = ast.unparse(node)
        written = any(text.startswith((f"{name} = ", f"{name}(")) for name in TOUCHED) or "train_test_split(" in text
        if not written and not isinstance(node, ast.Import | ast.ImportFrom):
            kept.append(text)
    return kept


def imported(source: str) -> set[str]:
    return {
        f"{ast.unparse(node).rpartition(' import ')[0]} {ast.unparse(alias)}"
        for node in ast.parse(source).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }


def check(source: str, edited: str) -> None:
    compile(edited, "script.py", "exec")
    assert edited != source
    assert statements(edited) == statements(source)
    assert imported(edited) >= imported(source)


@pytest.mark.parametrize("task", some_slow(BUNDLED, ("house_price", "digit_images", "product_rating")))
def test_every_recipe_of_the_kind_leaves_the_rest_of_a_bundled_script_as_it_is(task: str) -> None:
    kind, source = BUNDLED[task]
    applied = 0
    for _, edited in edits(source, [name for name, recipe in RECIPES.items() if kind in recipe.kinds]):
        check(source, edited)
        assert max(len(line) for line in edited.splitlines()) < 400
        applied += 1
    assert applied >= 25


@pytest.mark.parametrize("task", some_slow(FOREIGN, ("odd", "spaceship-titanic", "cifar-10")))
def test_a_foreign_script_is_edited_whole_or_not_at_all(task: str) -> None:
    for name, edited in edits(FOREIGN[task], list(RECIPES)):
        check(FOREIGN[task], edited)
        gone = set(comments(FOREIGN[task])) - set(comments(edited))
        assert gone <= {"# strong", "# gaps", "# scales"}, name  # what belongs to a replaced part goes with it


@pytest.mark.slow
def test_no_recipe_that_needs_a_pipeline_edits_a_torch_script() -> None:
    torch = [source for source in FOREIGN.values() if "import torch" in source]
    assert len(torch) >= 5
    done = {name for source in torch for name, _ in edits(source, list(RECIPES))}
    assert done <= {"half_rows", "drop_label", "new_seed", "smaller_holdout"}
    assert done


def test_odd_layout_stays() -> None:
    edited = apply(ODD, ["weaker_regularisation"])
    assert edited == ODD.replace("alpha=10.0,  # strong", "alpha=1.0,  # strong")
    edited = apply(ODD, ["splines"])
    assert (
        edited.replace("    SplineTransformer(n_knots=4),\n", "").replace(
            "import SplineTransformer, Standard", "import Standard"
        )
        == ODD
    )
    edited = apply(ODD, ["random_forest"])
    assert "    RandomForestRegressor(n_estimators=40, max_features=0.4, random_state=0),  # linear\n" in edited
    assert "    LogisticRegression as Linear,  # renamed\n" in apply(ODD, ["linear_svm"])
    assert edited.index("from __future__") < edited.index("from sklearn.ensemble")
    assert 'train.drop(columns=["house", "price"])' in apply(ODD, ["one_hot"])
    assert "random_state = 1" in apply(ODD, ["new_seed"])


@pytest.mark.slow
def test_any_two_recipes_in_a_row_leave_valid_python() -> None:
    rng = random.Random("pairs")
    applied = 0
    for _ in range(400):
        kind, source = BUNDLED[rng.choice(sorted(BUNDLED))]
        names = rng.sample([name for name, recipe in RECIPES.items() if kind in recipe.kinds], 2)
        for chain in (names, names[::-1]):
            try:
                edited = apply(source, chain)
            except Cannot:
                continue
            if edited != source:  # else the second took back the first, as regularising less does a stump
                check(source, edited)
                applied += 1
    assert applied > 250


@pytest.mark.slow
def test_long_chains_of_edits_stay_valid() -> None:
    rng = random.Random("chains")
    lengths = []
    for _ in range(30):
        kind, source = BUNDLED[rng.choice(sorted(BUNDLED))]
        script, done = source, 0
        for _ in range(12):
            name = rng.choice([name for name, recipe in RECIPES.items() if kind in recipe.kinds])
            try:
                script = apply(script, [name])
            except Cannot:
                continue
            check(source, script)
            done += 1
        lengths.append(done)
    assert sum(lengths) / len(lengths) > 4


COMMENTS = st.sampled_from(("", "  # a note", "  # random_state=0, X, model = 1"))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(BUNDLED)), st.sampled_from(sorted(RECIPES)), st.data())
def test_notes_at_the_ends_of_lines_and_between_them_survive_every_edit(
    task: str, name: str, data: st.DataObject
) -> None:
    lines = []
    for number, line in enumerate(BUNDLED[task][1].splitlines()):
        if data.draw(st.booleans()):
            lines.append(f"# line {number}: model = None")
        lines.append(line + (data.draw(COMMENTS) if line else ""))
    source = "\n".join(lines) + "\n"
    for _, edited in edits(source, [name]):
        check(source, edited)
        assert comments(edited) == comments(source)


@pytest.mark.parametrize(
    ("source", "name", "part"),
    [
        ("model = make_pipeline(Ridge(5.0))\n", "weaker_regularisation", "no names"),
        ("model = make_pipeline(Ridge(**options))\n", "weaker_regularisation", "no names"),
        ("model = make_pipeline(CountVectorizer(**options), Ridge())\n", "bigrams", "not written out"),
        ("model = make_pipeline(lm.Ridge(alpha=1.0))\n", "random_forest", "not known"),
        ('model = make_pipeline("passthrough", Ridge())\n', "standardize", "not all constructors"),
        ("model = other = make_pipeline(Ridge())\n", "standardize", "no line"),
        (
            "model = make_pipeline(GridSearchCV(param_grid=dict(alpha=[1]), estimator=Lasso(alpha=1.0)))\n",
            "new_seed",
            "no seed",
        ),
    ],
)
def test_what_is_not_understood_is_said(source: str, name: str, part: str) -> None:
    with pytest.raises(Cannot, match=part):
        apply(source, [name])


def test_an_estimator_is_found_by_the_name_of_its_argument() -> None:
    source = "model = make_pipeline(GridSearchCV(param_grid=dict(tol=[1]), estimator=Lasso(alpha=1.0)))\n"
    edited = apply(source, ["weaker_regularisation"])
    assert "GridSearchCV(param_grid=dict(tol=[1]), estimator=Lasso(alpha=0.1))" in edited


def test_arguments_are_listed_as_the_call_lists_its_own() -> None:
    call = parse_call("f(\n    a=1,  # one\n    b=2  # two\n)")
    edited = code_of(with_keyword(call, "c", 3))
    assert edited == "f(\n    a=1,  # one\n    b=2,  # two\n    c=3\n)"
    assert code_of(with_keyword(parse_call("f()"), "c", "x")) == 'f(c="x")'
    assert code_of(relist(call, [call.args[1]])) == "f(\n    b=2  # two\n)"
    assert code_of(relist(call, [cst.Arg(cst.Name("x")), *call.args])).startswith("f(\n    x,\n    a=1,  # one\n")


# Estimators that take a `random_state` and do not use it with the arguments that scripts here give them.
DETERMINISTIC = {"LogisticRegression", "Ridge", "RidgeClassifier", "Lasso", "ElasticNet", "DummyClassifier"}


def takes_random_state() -> set[str]:
    estimators = {name for name, kind in all_estimators() if "random_state" in inspect.signature(kind).parameters}
    return estimators | {"train_test_split"}


@pytest.mark.parametrize("name", BUNDLED)
def test_everything_random_in_an_edited_script_has_a_seed(name: str) -> None:
    seeded = takes_random_state() - DETERMINISTIC
    unseeded = {
        (recipe, call.func.id)
        for recipe, source in edits(BUNDLED[name][1], list(RECIPES))
        for call in ast.walk(ast.parse(source))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in seeded
        if "random_state" not in {keyword.arg for keyword in call.keywords}
    }
    assert not unseeded
