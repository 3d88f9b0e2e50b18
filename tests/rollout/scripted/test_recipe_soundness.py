"""An edited script works and does what was asked for, whatever edits came before; else the coder says why not."""

import numpy as np
import pytest

from rollout.scripted.recipes import Cannot, apply

LINEAR = "LogisticRegression(C=0.1, max_iter=20)"


def model(steps: str) -> str:
    return f"model = make_pipeline({steps})\n"


def edited(steps: str, *names: str) -> str:
    """Returns the pipeline after recipes, one after the other."""
    source = model(steps)
    for name in names:
        source = apply(source, [name])
    return source.splitlines()[-1].removeprefix("model = ")


IMPORTS = """\
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
"""
ASKING = "score = roc_auc_score(y, model.predict_proba(X)[:, 1])\n"


@pytest.mark.parametrize("tail", ["", ASKING])
@pytest.mark.parametrize(
    ("estimator", "names"),
    [
        (LINEAR, ("svm", "blend")),
        (LINEAR, ("linear_svm", "blend")),
        ("SGDClassifier(random_state=0)", ("seed_average",)),
        ("SGDClassifier(loss='log_loss', random_state=0)", ("seed_average",)),
        (LINEAR, ("hist_boosting", "more_trees")),
    ],
)
def test_models_upon_models_fit_and_give_what_the_script_asks_for(
    tail: str, estimator: str, names: tuple[str, ...]
) -> None:
    source = f"{IMPORTS}{model(estimator)}model.fit(X, y)\n{tail}"
    for name in names:
        source = apply(source, [name])
    X = np.random.default_rng(0).normal(size=(40, 3))
    space: dict[str, object] = {"X": X, "y": (X[:, 0] > 0).astype(int)}
    exec(source, space)
    assert space["model"].predict(X).shape == (40,)  # type: ignore[attr-defined]


def test_default_parameters_keep_the_probabilities_that_the_script_asks_for() -> None:
    assert edited("SVC(probability=True, C=10.0)", "default_parameters") == "make_pipeline(SVC())"
    for call, kept in (
        ("SVC(probability=True, C=10.0)", "SVC(probability=True)"),
        ('SGDClassifier(alpha=1.0, loss="log_loss")', 'SGDClassifier(loss="log_loss")'),
    ):
        assert f"make_pipeline({kept})\n" in apply(model(call) + ASKING, ["default_parameters"])
    with pytest.raises(Cannot, match="has its default parameters"):
        apply(model("SVC(probability=True)") + ASKING, ["default_parameters"])


def test_a_model_that_was_calibrated_to_be_averaged_is_plain_again() -> None:
    assert edited(LINEAR, "svm", "blend", "plain_model") == "make_pipeline(SVC(random_state=0))"
    with pytest.raises(Cannot, match="no probabilities"):
        apply(apply(model("SVC()") + ASKING, ["blend"]), ["plain_model"])


def test_more_trees_of_histogram_boosting_are_more_of_its_rounds() -> None:
    assert "(max_iter=120, max_leaf_nodes=15," in edited(LINEAR, "hist_boosting", "more_trees")
    with pytest.raises(Cannot, match="number of trees"):
        edited("ExtraTreeClassifier()", "more_trees")


@pytest.mark.parametrize(
    ("estimator", "name", "part"),
    [
        ("HistGradientBoostingClassifier()", "deeper_trees", "not limited"),
        ("GradientBoostingClassifier(max_depth=None)", "deeper_trees", "not limited"),
        ("RandomForestClassifier(max_depth=DEPTH)", "deeper_trees", "max_depth is not written as a number"),
        ("DecisionTreeClassifier(max_depth=1)", "shallower_trees", "already shallow"),
        ("RandomForestClassifier(n_estimators=TREES)", "more_trees", "n_estimators is not written as a number"),
        ("LogisticRegression(max_iter=STEPS)", "more_iterations", "max_iter is not written as a number"),
        ("Ridge(alpha=ALPHA)", "weaker_regularisation", "alpha is not written as a number"),
        ("MLPClassifier(learning_rate_init=RATE)", "lower_learning_rate", "is not written as a number"),
        ("RandomForestClassifier(min_samples_leaf=0.2)", "stronger_regularisation", "not a count"),
        ("Ridge(alpha=0)", "weaker_regularisation", "cannot be less"),
        ("MLPClassifier(hidden_layer_sizes=SIZES)", "larger_layer", "not written as whole numbers"),
        ("MLPClassifier(hidden_layer_sizes=(256, 32))", "larger_layer", "already large"),
    ],
)
def test_a_number_that_would_go_the_wrong_way_stays(estimator: str, name: str, part: str) -> None:
    with pytest.raises(Cannot, match=part):
        edited(estimator, name)


def test_a_larger_layer_leaves_the_others_as_they_are() -> None:
    assert edited("MLPClassifier()", "larger_layer") == "make_pipeline(MLPClassifier(hidden_layer_sizes=(128,)))"
    assert "(hidden_layer_sizes=(128, 32))" in edited("MLPClassifier(hidden_layer_sizes=(64, 32))", "larger_layer")


def test_whole_numbers_of_a_continuous_parameter_are_no_counts() -> None:
    assert edited("Ridge(alpha=1)", "weaker_regularisation") == "make_pipeline(Ridge(alpha=0.1))"
    assert edited("LogisticRegression(C=1)", "stronger_regularisation") == "make_pipeline(LogisticRegression(C=0.1))"
    assert "n_neighbors=20" in edited("KNeighborsClassifier()", "stronger_regularisation")


SEARCH = "GridSearchCV(LogisticRegression(max_iter=20, C=3.0), {}, cv=2)"


@pytest.mark.parametrize(
    ("grid", "part"),
    [
        ('{"C": [0.1, 1.0]}', "C is already searched"),
        ("dict(C=[0.1, 1.0])", "C is already searched"),
        ('[{"estimator__C": [0.1, 1.0]}]', "C is already searched"),
        ("make_grid()", "grid of the search is not written out"),
    ],
)
def test_a_parameter_that_is_searched_is_not_set(grid: str, part: str) -> None:
    for name in ("weaker_regularisation", "stronger_regularisation"):
        with pytest.raises(Cannot, match=part):
            edited(SEARCH.replace("{}", grid), name)


def test_other_parameters_than_the_searched_ones_are_set() -> None:
    searching = edited(LINEAR, "tune")
    assert searching.replace("max_iter=20", "max_iter=200") == edited(LINEAR, "tune", "more_iterations")
    assert "LogisticRegression(C=0.1), {" in edited(LINEAR, "tune", "default_parameters")
    source = f"GRID = dict(C=[1.0])\n{model(SEARCH.replace('{}', 'GRID'))}"
    with pytest.raises(Cannot, match="C is already searched"):
        apply(source, ["weaker_regularisation"])


def test_the_learning_rate_of_a_schedule_without_one_is_made_constant() -> None:
    assert edited("SGDClassifier()", "lower_learning_rate").endswith('(eta0=0.003, learning_rate="constant"))')
    kept = edited('SGDClassifier(eta0=0.1, learning_rate="adaptive")', "lower_learning_rate")
    assert kept == 'make_pipeline(SGDClassifier(eta0=0.03, learning_rate="adaptive"))'


@pytest.mark.parametrize(
    ("counts", "name", "part"),
    [
        ("HashingVectorizer()", "rare_words", "no vocabulary"),
        ("HashingVectorizer()", "smaller_vocabulary", "no vocabulary"),
        ("HashingVectorizer()", "larger_vocabulary", "no vocabulary"),
        ("CountVectorizer(max_features=20)", "smaller_vocabulary", "already small"),
        ("CountVectorizer(max_features=WORDS)", "larger_vocabulary", "not written as a number"),
        ("CountVectorizer(min_df=6)", "rare_words", "already dropped"),
        ("CountVectorizer(min_df=0.1)", "rare_words", "already dropped"),
        ("CountVectorizer(ngram_range=(1, 3))", "bigrams", "more than single words"),
        ("CountVectorizer(ngram_range=RANGE)", "bigrams", "more than single words"),
        *(
            ('CountVectorizer(analyzer="char_wb")', name, "does not count words")
            for name in ("bigrams", "stop_words", "rare_words", "words_and_letters")
        ),
    ],
)
def test_counts_of_words_are_changed_only_the_way_that_was_asked_for(counts: str, name: str, part: str) -> None:
    with pytest.raises(Cannot, match=part):
        edited(f"{counts}, {LINEAR}", name)


def test_single_words_are_joined_by_bigrams() -> None:
    counts = 'CountVectorizer(analyzer="word", ngram_range=(1, 1))'
    assert "ngram_range=(1, 2)" in edited(f"{counts}, {LINEAR}", "bigrams")
    assert "max_features=30" in edited(f"CountVectorizer(max_features=None), {LINEAR}", "smaller_vocabulary")


TABLES = """\
import pandas as pd

train = pd.read_csv("train.csv")
test = pd.read_csv("test.csv")
y = train["target"]
X = train[["a", "b"]].fillna(0)
X_test = test[X.columns].fillna(0)
model = make_pipeline(Ridge(alpha=1.0))
model.fit(X, y)
pd.DataFrame({"id": test["id"], "target": model.predict(X_test)}).to_csv("submission.csv", index=False)
"""


def after(name: str, *changes: tuple[str, str]) -> str:
    """Returns the script of two tables, with some of its code replaced, after a recipe."""
    source = TABLES
    for old, new in changes:
        assert source.count(old) == 1
        source = source.replace(old, new)
    return apply(source, [name])


@pytest.mark.parametrize(
    ("line", "dropped"),
    [
        ('TARGET = "target"', "TARGET"),
        ('TARGET = ["target"]', "*TARGET"),
        ('TARGET = ("target", "more")', "*TARGET"),
    ],
)
def test_a_named_target_is_dropped_as_what_the_name_stands_for(line: str, dropped: str) -> None:
    changes = ("train = ", f"{line}\ntrain = "), ('train["target"]', "train[TARGET]")
    assert f'X = train.drop(columns=["id", {dropped}]).select' in after("all_columns", *changes)


@pytest.mark.parametrize("line", ["TARGET = find()", ""])
def test_a_target_of_unknown_kind_is_not_dropped(line: str) -> None:
    with pytest.raises(Cannot, match="which column is the target|no line 'TARGET"):
        after("all_columns", ("train = ", f"{line}\ntrain = "), ('train["target"]', "train[TARGET]"))


MADE = ("y = ", 'test["sum"] = test["a"] + test["b"]\ny = ')
ENDS = 'pd.DataFrame({"id": test["id"], "target": model.predict(X_test)}).to_csv'


@pytest.mark.parametrize(
    "changes",
    [
        (MADE,),
        (("X_test = ", 'sizes = test["size"]\nX_test = '),),
        (
            MADE,
            (
                ENDS,
                'out = pd.DataFrame({"target": model.predict(X_test)})\nout.insert(0, "id", test["id"])\nout.to_csv',
            ),
        ),
        (MADE, (ENDS, 'columns = {"id": test["id"], "target": model.predict(X_test)}\npd.DataFrame(columns).to_csv')),
    ],
)
def test_the_identifier_is_what_the_submission_holds(changes: tuple[tuple[str, str], ...]) -> None:
    assert 'train.drop(columns=["id", "target"])' in after("all_columns", *changes)
    assert '.assign(id=train["id"])' in after("id_feature", *changes)


def test_an_identifier_is_not_guessed() -> None:
    for held in ('{"id": test["id"], "size": test["size"]}', "names"):
        with pytest.raises(Cannot, match="which column is the identifier"):
            after("all_columns", (ENDS, f"pd.DataFrame({held}).to_csv"))


def test_rows_that_are_dropped_are_no_columns() -> None:
    with pytest.raises(Cannot, match="drops rows"):
        after("one_hot", ('train[["a", "b"]]', 'train.drop(index=[0])[["a", "b"]]'))


def test_gaps_of_other_columns_are_filled_as_before_or_not_at_all() -> None:
    filled = after("all_columns", ('"b"]].fillna(0)', '"b"]].fillna(-1)'))
    assert 'X = train.drop(columns=["id", "target"]).select_dtypes("number").fillna(-1)\n' in filled
    assert filled.count(".fillna(0)") == 1
    assert after("one_hot", ('"b"]].fillna(0)', '"b"]].fillna(value=-1)')).count(".fillna(-1)") == 2
    for fill in ("train.median()", "MEDIANS", "{'a': 0}", "method='ffill'", "0).fillna(1"):
        for name in ("all_columns", "one_hot"):
            with pytest.raises(Cannot, match="not filled with a number"):
                after(name, ('"b"]].fillna(0)', f'"b"]].fillna({fill})'))


@pytest.mark.parametrize(
    ("name", "line", "again"),
    [
        ("random_forest", "model.fit(X, y)", "model = make_pipeline(Ridge(alpha=2.0))\nmodel.fit(X, y)"),
        ("all_columns", "model.fit(X, y)", "X, rest = X[1:], X[:1]\nmodel.fit(X, y)"),
        ("half_rows", "y = ", "train = train.dropna()\ny = "),
    ],
)
def test_a_name_of_two_assignments_is_not_edited(name: str, line: str, again: str) -> None:
    after(name)
    with pytest.raises(Cannot, match="more than once"):
        after(name, (line, again))


def test_a_sample_is_taken_of_whatever_the_rows_are() -> None:
    choice = 'pd.read_csv("a.csv") if SMALL else pd.read_csv("b.csv")'
    for rows in (choice, f"({choice})"):
        edited = after("half_rows", ('pd.read_csv("train.csv")', rows))
        assert f"train = ({choice}).sample(frac=0.4, random_state=0)\n" in edited


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('y = train["target"]', 'y = np.log1p(train["target"])'),
        ('y = train["target"]', 'y = train["target"].apply(np.log)'),
        ("y = ", 'train["target"] = np.log1p(train["target"])\ny = '),
        ("model.fit(X, y)", "model.fit(X, np.log(y))"),
        ("model.predict(X_test)", "np.expm1(model.predict(X_test))"),
    ],
)
def test_the_logarithm_of_a_logarithm_is_not_taken(old: str, new: str) -> None:
    assert "func=np.log1p" in after("log_target", ("y = ", 'train["a"] = np.log1p(train["a"])\ny = '))
    with pytest.raises(Cannot, match="takes a logarithm of the target itself"):
        after("log_target", (old, new))


def test_shifted_copies_have_the_columns_that_the_test_images_have() -> None:
    classes = ("Ridge(alpha=1.0)", LINEAR)
    assert ".shift(1, axis=1" in after("shifted_copies", classes)
    with pytest.raises(Cannot, match="does not take its columns from X"):
        after("shifted_copies", classes, ("test[X.columns]", 'test[["a", "b"]]'))
