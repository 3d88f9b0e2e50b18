import ast
import importlib.util
import random
import subprocess
import sys
from pathlib import Path

import pytest

from rollout.recipes import RECIPES, Cannot, apply, recognise
from rollout.recipes.recipe import ALL
from tasks.idea_library import AXES, LIBRARY
from tasks.registry import CATALOG

NUMERIC = """\
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

train = pd.read_csv("train.csv")
test = pd.read_csv("test.csv")
y = train["target"]
X = train.drop(columns=["id", "target"]).select_dtypes("number").fillna(0)
X_test = test[X.columns].fillna(0)

X_fit, X_val, y_fit, y_val = train_test_split(X, y, test_size=0.25, random_state=0)
model = make_pipeline(LogisticRegression(C=0.001, max_iter=20))
model.fit(X_fit, y_fit)
score = accuracy_score(y_val, model.predict(X_val))
print(f"validation accuracy: {score:.4f}")

model.fit(X, y)
pd.DataFrame({"id": test["id"], "target": model.predict(X_test)}).to_csv("submission.csv", index=False)
"""
REGRESSION = NUMERIC.replace("LogisticRegression(C=0.001, max_iter=20)", "Ridge(alpha=100.0)").replace(
    "LogisticRegression", "Ridge"
)
TEXT = (
    NUMERIC.replace("make_pipeline(Log", "make_pipeline(CountVectorizer(max_features=100), Log")
    .replace('train.drop(columns=["id", "target"]).select_dtypes("number").fillna(0)', 'train["text"]')
    .replace("test[X.columns].fillna(0)", 'test["text"]')
    .replace("from sklearn.linear", "from sklearn.feature_extraction.text import CountVectorizer\nfrom sklearn.linear")
)


def model_line(source: str) -> str:
    return next(line for line in source.splitlines() if line.startswith("model = "))


def catalog_scripts() -> dict[str, str]:
    return {path.parent.name: path.read_text() for path in sorted(CATALOG.glob("*/train.py"))}


@pytest.mark.parametrize("name", RECIPES)
def test_every_phrasing_asks_for_its_recipe_alone(name: str) -> None:
    for phrasing in RECIPES[name].phrasings:
        assert recognise(phrasing) == [name], phrasing
        assert len(phrasing.split()) <= 14
        assert phrasing.endswith(".")


def test_recipes_cover_the_axes_and_every_effect() -> None:
    assert {recipe.axis for recipe in RECIPES.values()} == set(AXES)
    assert {recipe.effect for recipe in RECIPES.values()} == {"good", "harmless", "harmful", "slow", "crash"}
    assert all(4 <= len(recipe.phrasings) <= 6 and set(recipe.kinds) <= set(ALL) for recipe in RECIPES.values())


def test_any_two_recipes_can_be_asked_for_in_one_sentence() -> None:
    rng = random.Random(0)
    for _ in range(2000):
        first, second = rng.sample(sorted(RECIPES), 2)
        a, b = rng.choice(RECIPES[first].phrasings), rng.choice(RECIPES[second].phrasings)
        sentence = f"{a.removesuffix('.')} and {b[0].lower()}{b[1:]}"
        assert recognise(sentence) == [first, second], sentence


@pytest.mark.parametrize(
    ("instruction", "names"),
    [
        ("", []),
        ("Make it better.", []),
        ("Edit next_clip.py and save it as bagging.py.", []),
        ("Use a random forest in forest.py, save gradient boosting.py", ["random_forest"]),
        ("STANDARDIZE the\nfeatures", ["standardize"]),
        ("Use a Use more", []),
        ("Use more trees trees of the trees and", ["more_trees"]),
        ("Use a random forest with extra trees and boosting", ["random_forest", "extra_trees"]),
        ("Use baggings of the foresters", []),
    ],
)
def test_recognition_survives_odd_sentences(instruction: str, names: list[str]) -> None:
    assert recognise(instruction) == names


def test_a_file_name_asks_for_nothing() -> None:
    assert recognise("Use bagging.py") == []
    assert recognise("Use bagging.") == ["bagging"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_edits_some_script_into_valid_python_or_says_why_not(name: str) -> None:
    applied = 0
    sources = [NUMERIC, REGRESSION, TEXT, apply(NUMERIC, ["random_forest"]), apply(NUMERIC, ["gradient_boosting"])]
    sources += catalog_scripts().values()
    for source in sources:
        try:
            edited = apply(source, [name])
        except Cannot as reason:
            assert str(reason)
            continue
        ast.parse(edited)
        applied += 1
        assert edited != source
        assert edited.count("model = make_pipeline(") == 1
        assert edited.count("print(") == edited.count("to_csv(") == 1
        unchanged = set(source.splitlines()) & set(edited.splitlines())
        assert len(unchanged) >= len(set(source.splitlines())) - 4
    assert applied


@pytest.mark.parametrize("name", ["standardize", "one_hot", "log_target", "tfidf", "random_forest", "blend", "tune"])
def test_a_recipe_applied_twice_has_nothing_to_change(name: str) -> None:
    source = TEXT if name == "tfidf" else REGRESSION
    with pytest.raises(Cannot):
        apply(apply(source, [name]), [name])


def test_steps_come_in_an_order_that_works_whatever_the_order_asked_in() -> None:
    source = apply(apply(NUMERIC, ["select_best", "splines"]), ["standardize", "median_impute"])
    steps = ["SimpleImputer", "StandardScaler", "SplineTransformer", "SelectPercentile", "LogisticRegression"]
    line = model_line(source)
    assert [line.index(step) for step in steps] == sorted(line.index(step) for step in steps)
    assert "fillna" not in source


def test_a_scaler_takes_the_place_of_another() -> None:
    line = model_line(apply(NUMERIC, ["scale_to_range", "standardize"]))
    assert "StandardScaler()" in line
    assert "MinMaxScaler" not in line


def test_parameters_are_tuned_inside_what_wraps_the_estimator() -> None:
    line = model_line(apply(REGRESSION, ["log_target", "weaker_regularisation"]))
    assert "TransformedTargetRegressor(Ridge(alpha=10.0), func=np.log1p" in line
    line = model_line(apply(apply(REGRESSION, ["log_target"]), ["random_forest"]))
    assert "TransformedTargetRegressor(RandomForestRegressor(" in line


def test_probabilities_are_kept_where_the_script_asks_for_them() -> None:
    assert "SVC()" in model_line(apply(NUMERIC, ["svm"]))
    asking = NUMERIC.replace("model.predict(X_val)", "model.predict_proba(X_val)[:, 1]")
    assert "CalibratedClassifierCV(SVC(), ensemble=False)" in model_line(apply(asking, ["svm"]))


def test_imports_are_added_in_place_and_none_is_doubled() -> None:
    source = apply(NUMERIC, ["standardize", "random_forest"])
    imports = [line for line in source.splitlines() if line.startswith("from sklearn")]
    assert imports == sorted(imports)
    assert "from sklearn.linear_model import LogisticRegression" in imports  # unused now, and left
    twice = apply(source, ["splines"])
    assert "from sklearn.preprocessing import SplineTransformer, StandardScaler" in twice


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("x = (", "does not parse"),
        ("x = 1\n", "no line 'model = ...'"),
        ("model = Ridge()\n", "make_pipeline"),
        ("model = make_pipeline(*steps)\n", "not all constructors"),
        ("model = make_pipeline()\n", "not all constructors"),
        ("model = make_pipeline(Mystery())\n", "Mystery"),
    ],
)
def test_a_script_without_the_structure_is_refused_with_the_reason(source: str, part: str) -> None:
    with pytest.raises(Cannot, match=part.replace("(", r"\(").replace("*", r"\*")):
        apply(source, ["random_forest"])


def test_every_idea_of_the_library_is_understood_and_meant_for_its_kinds() -> None:
    assert len({idea.text for idea in LIBRARY}) == len(LIBRARY)
    for idea in LIBRARY:
        names = recognise(idea.text)
        assert names, idea.text
        assert all(set(idea.kinds) <= set(RECIPES[name].kinds) for name in names), idea.text
    for axis in AXES:
        assert sum(idea.axis == axis for idea in LIBRARY) >= 25


def test_recipes_need_no_scikit_learn_themselves() -> None:
    code = "import sys, rollout.recipes; sys.exit(any(m.split('.')[0] in ('sklearn', 'torch') for m in sys.modules))"
    root = Path(importlib.util.find_spec("rollout").origin).parents[1]  # type: ignore[union-attr, arg-type]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
