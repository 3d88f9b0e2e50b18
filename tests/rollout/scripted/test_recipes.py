import ast
import importlib.util
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from rollout.exploration.library import AXES, LIBRARY
from rollout.scripted.recipes import RECIPES, Cannot, apply, recognize
from rollout.scripted.recipes.recipe import ALL

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


FEW = NUMERIC.replace('train.drop(columns=["id", "target"]).select_dtypes("number")', 'train[["a", "b"]]')
F1 = NUMERIC.replace("accuracy_score", "f1_score")
MODELS = ("random_forest", "gradient_boosting", "neural_network", "blend")
SOURCES = [REGRESSION, NUMERIC, TEXT, FEW, F1, *(apply(NUMERIC, [model]) for model in MODELS)]
# What goes a step further each time it is asked for.
REPEATABLE = frozenset(
    """weaker_regularisation stronger_regularisation more_iterations more_trees deeper_trees lower_learning_rate
    larger_vocabulary new_seed huge_learning_rate shallower_trees larger_layer remove_step plain_model bagging
    split_features huge_forest""".split()
)
IDEMPOTENT = sorted(set(RECIPES) - REPEATABLE)


def fits(source: str, name: str) -> bool:
    try:
        return bool(apply(source, [name]))
    except Cannot:
        return False


def model_line(source: str) -> str:
    return next(line for line in source.splitlines() if line.startswith("model = "))


@pytest.mark.parametrize("name", RECIPES)
def test_every_phrasing_asks_for_its_recipe_alone(name: str) -> None:
    for phrasing in RECIPES[name].phrasings:
        assert recognize(phrasing) == [name], phrasing
        assert len(phrasing.split()) <= 14
        assert phrasing.endswith(".")


def test_recipes_cover_the_axes_and_every_effect() -> None:
    assert {recipe.axis for recipe in RECIPES.values()} == set(AXES)
    assert {recipe.effect for recipe in RECIPES.values()} == {"good", "harmless", "harmful", "slow", "crash"}
    assert all(4 <= len(recipe.phrasings) <= 6 and set(recipe.kinds) <= set(ALL) for recipe in RECIPES.values())
    assert len(RECIPES) >= 60
    for kind in (kind for kind in ALL if kind != "text-regression"):
        fitting = [recipe for recipe in RECIPES.values() if kind in recipe.kinds]
        assert {recipe.axis for recipe in fitting} == set(AXES)
        assert {recipe.effect for recipe in fitting} == {"good", "harmless", "harmful", "slow", "crash"}
        assert len(fitting) >= 40
    assert all(set(recipe.undoes) <= set(RECIPES) for recipe in RECIPES.values())


def test_any_two_recipes_can_be_asked_for_in_one_sentence() -> None:
    rng = random.Random(0)
    for _ in range(1000):
        first, second = rng.sample(sorted(RECIPES), 2)
        a, b = rng.choice(RECIPES[first].phrasings), rng.choice(RECIPES[second].phrasings)
        sentence = f"{a.removesuffix('.')} and {b[0].lower()}{b[1:]}"
        assert recognize(sentence) == [first, second], sentence


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
    assert recognize(instruction) == names


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("forbid", ["Do not {}", "Please don't {}", "Never {}", "It overfits, so do not {}"])
def test_what_is_forbidden_is_not_asked_for(name: str, forbid: str) -> None:
    for phrasing in RECIPES[name].phrasings:
        clause = phrasing.partition(" and ")[0]  # a second one would not be forbidden
        sentence = forbid.format(clause[0].lower() + clause[1:])
        assert name not in recognize(sentence), sentence


@pytest.mark.parametrize(
    ("instruction", "names"),
    [
        ("Use gradient boosting instead of a random forest.", ["gradient_boosting"]),
        ("Instead of a random forest, use gradient boosting.", ["gradient_boosting"]),
        ("Replace the random forest with gradient boosting.", ["gradient_boosting"]),
        ("Replace the model by a random forest.", ["random_forest"]),
        ("Replace the ridge regression or use bagging.", ["bagging"]),
        ("Replace missing values with the median.", ["median_impute"]),
        ("Make sure there are no missing values.", ["median_impute"]),
        ("Switch from a random forest to boosting.", ["gradient_boosting"]),
        ("Use extra trees, not a random forest, without bagging.", ["extra_trees"]),
        ("Use a random forest rather than tuning the linear model.", ["random_forest"]),
        ("Use not only bagging but also stacking.", ["bagging", "stacking"]),
        ("Stop bagging.", []),
        ("There is no need to tune the model.", []),
        ("Remove the StandardScaler and undo the PCA.", []),
        ("Do not use a random\nforest.", []),
        # lists
        ("Use neither bagging nor stacking.", []),
        ("Do not use a random forest, extra trees or bagging.", []),
        ("Do not use bagging, or stacking, but tune the model.", ["tune"]),
        ("Use extra trees instead of a random forest, standardize the features.", ["extra_trees", "standardize"]),
        # less of it
        ("Reduce the number of trees.", []),
        ("Lower max_iter to 20 and the learning rate is fine.", []),
        ("Reduce the learning rate.", ["lower_learning_rate"]),
        ("Lower the decision threshold.", ["threshold"]),
        ("Reduce the features to two components.", ["two_components"]),
        # the end of what is forbidden
        ("Do not forget to standardize the features.", ["standardize"]),
        ("Don't be afraid to use more trees.", ["more_trees"]),
        ("The features are not scaled: add StandardScaler.", ["standardize"]),
        ("The model does not converge, train for more iterations.", ["more_iterations"]),
        ("Avoid overfitting with stronger regularization.", ["stronger_regularisation"]),
        ("- Never touch the test set\n- Standardize the features", ["standardize"]),
        ("Do not use the linear model - use gradient boosting.", ["gradient_boosting"]),
        ("Do not use the linear model (use gradient boosting).", ["gradient_boosting"]),
        ("Do not change anything other than adding more trees.", ["more_trees"]),
        # twice
        ("Never train without standardizing the features.", ["standardize"]),
        ("Do not ignore the missing values.", ["median_impute"]),
        ("You should not skip tuning.", ["tune"]),
        # what takes something away
        ("Do not fill the missing values.", ["keep_gaps"]),
        ("Removing stop words should reduce noise.", ["stop_words"]),
        ("Use TF-IDF with no stop words.", ["tfidf", "stop_words"]),
        ("Get rid of all of the useless features.", ["select_best"]),
        ("Undo the last step.", ["remove_step"]),
        ("Do not remove the stop words.", []),
    ],
)
def test_what_is_turned_down_is_told_from_what_is_wanted(instruction: str, names: list[str]) -> None:
    assert recognize(instruction) == names


def test_a_file_name_asks_for_nothing() -> None:
    assert recognize("Use bagging.py") == []
    assert recognize("Use bagging.") == ["bagging"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_edits_some_script_into_valid_python_or_says_why_not(name: str) -> None:
    applied = 0
    for source in SOURCES:
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


@pytest.mark.parametrize("name", IDEMPOTENT)
def test_a_recipe_applied_twice_has_nothing_to_change(name: str) -> None:
    source = next(source for source in SOURCES if fits(source, name))
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
    assert "SVC(random_state=0)" in model_line(apply(NUMERIC, ["svm"]))
    asking = NUMERIC.replace("model.predict(X_val)", "model.predict_proba(X_val)[:, 1]")
    assert "CalibratedClassifierCV(SVC(random_state=0), ensemble=False)" in model_line(apply(asking, ["svm"]))


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
        names = recognize(idea.text)
        assert names, idea.text
        assert all(set(idea.kinds) <= set(RECIPES[name].kinds) for name in names), idea.text
    for axis in AXES:
        assert sum(idea.axis == axis for idea in LIBRARY) >= 25


def test_every_recipe_worth_asking_for_is_asked_for_by_two_ideas() -> None:
    asked = Counter(name for idea in LIBRARY for name in recognize(idea.text))
    wanted = [r.name for r in RECIPES.values() if r.effect in ("good", "harmless") and not r.undoes]
    assert not [name for name in wanted if asked[name] < 2]
    assert all(asked[r.name] == 0 for r in RECIPES.values() if r.effect in ("slow", "crash"))


def test_recipes_need_no_scikit_learn_themselves() -> None:
    loaded = "any(name.split('.')[0] in ('sklearn', 'torch') for name in sys.modules)"
    code = f"import sys, rollout.scripted.recipes; sys.exit({loaded})"
    root = Path(importlib.util.find_spec("rollout").origin).parents[1]  # type: ignore[union-attr, arg-type]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_words_and_letters_are_counted_side_by_side_and_the_words_can_still_be_changed() -> None:
    line = model_line(apply(TEXT, ["words_and_letters", "bigrams"]))
    assert "make_union(CountVectorizer(max_features=100, ngram_range=(1, 2)), TfidfVectorizer(analyzer=" in line
    line = model_line(apply(apply(TEXT, ["words_and_letters"]), ["sublinear", "standardize"]))
    assert "make_union(TfidfVectorizer(max_features=100, sublinear_tf=True)" in line
    assert line.index("make_union") < line.index("StandardScaler(with_mean=False)") < line.index("LogisticRegression")
    assert "hist" not in line
    with pytest.raises(Cannot, match="counts of words"):
        apply(TEXT, ["hist_boosting"])
    assert "TruncatedSVD" in apply(apply(TEXT, ["topics"]), ["hist_boosting"])


def test_words_become_numbers_once() -> None:
    source = apply(NUMERIC, ["target_encoding"])
    assert 'X = train.drop(columns=["id", "target"])\nX_test = test[X.columns]\n' in source
    for second in ("one_hot", "median_impute", "missing_flags"):
        if second == "one_hot":
            assert "get_dummies" in apply(source, [second])
            continue
        with pytest.raises(Cannot, match="fills the gaps already"):
            apply(source, [second])
    with pytest.raises(Cannot, match="already encoded"):
        apply(apply(NUMERIC, ["one_hot"]), ["target_encoding"])


@pytest.mark.parametrize("added", ["standardize", "splines", "select_best"])
def test_a_step_can_be_taken_back(added: str) -> None:
    assert model_line(apply(apply(NUMERIC, [added]), ["remove_step"])) == model_line(NUMERIC)


@pytest.mark.parametrize("around", ["bagging", "blend", "stacking", "tune", "calibrate", "log_target"])
def test_what_is_around_a_model_can_be_taken_off(around: str) -> None:
    source = REGRESSION if around == "log_target" else NUMERIC
    assert model_line(apply(apply(source, [around]), ["plain_model"])) == model_line(source)


def test_the_score_is_taken_over_five_folds_without_a_change_of_its_form() -> None:
    edited = apply(NUMERIC, ["five_folds"])
    assert "score = accuracy_score(y, cross_val_predict(model, X, y, cv=5))" in edited
    asking = NUMERIC.replace("model.predict(X_val)", "model.predict_proba(X_val)[:, 1]")
    assert 'cross_val_predict(model, X, y, cv=5, method="predict_proba")[:, 1])' in apply(asking, ["five_folds"])


def test_copies_of_images_are_learnt_from_and_not_validated_on() -> None:
    edited = apply(NUMERIC, ["shifted_copies"])
    assert edited.count(".shift(1, axis=1, fill_value=0), ") == edited.count("] * 3))") == 2
    assert "model.predict(X_val)" in edited


def test_a_threshold_is_tuned_where_the_metric_has_one() -> None:
    assert "TunedThresholdClassifierCV(LogisticRegression(" in model_line(apply(F1, ["threshold"]))
    assert fits(F1.replace("X_val))", 'X_val), average="binary")'), "threshold")
    for source in (NUMERIC, F1.replace("X_val))", 'X_val), average="macro")')):
        with pytest.raises(Cannot):
            apply(source, ["threshold"])
