"""What an edit leaves works and does what was asked for, whatever edits came before; else the coder says why not."""

import numpy as np
import pytest

from rollout.recipes import Cannot, apply

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
    assert edited(LINEAR, "svm", "blend", "plain_model") == "make_pipeline(SVC())"
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
    ],
)
def test_a_number_that_would_go_the_wrong_way_stays(estimator: str, name: str, part: str) -> None:
    with pytest.raises(Cannot, match=part):
        edited(estimator, name)


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
