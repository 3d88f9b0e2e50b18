"""Recipes on the Model axis that replace the estimator of the pipeline."""

import libcst as cst

from rollout.scripted.recipes.data import SCALERS, standardize
from rollout.scripted.recipes.nodes import Cannot, call_name, code_of, keyword, parse_call
from rollout.scripted.recipes.parameters import PROBABILITIES
from rollout.scripted.recipes.recipe import ALL, CLASSIFICATION, NUMERIC, Recipe
from rollout.scripted.recipes.script import Script

ENSEMBLE = "sklearn.ensemble"
ENSEMBLES = ("RandomForest", "ExtraTrees", "GradientBoosting", "Bagging", "Voting", "Stacking", "HistGradientBoosting")


def use(script: Script, module: str, classifier: str, regressor: str) -> None:
    """Make the classifier or the regressor the estimator; raises Cannot if it is already there."""
    code = script.pick(classifier, regressor)
    if not code:
        raise Cannot("this model predicts classes only")
    call = parse_call(code)
    if call_name(call) == call_name(script.core) and keyword(call, "max_depth") == keyword(script.core, "max_depth"):
        raise Cannot(f"the model is already a {call_name(call)}")
    script.require(module, call_name(call))
    script.set_estimator(call)


def gives_probabilities(classifier: cst.Call) -> bool:
    """Return whether a classifier has `predict_proba` with its arguments."""
    name, values = PROBABILITIES.get(call_name(classifier), ("", (None,)))
    return keyword(classifier, name) in values


def with_probabilities(script: Script, call: cst.Call) -> str:
    """Return the code of `call`, calibrated if it is a classifier without probabilities."""
    if not script.is_classifier or gives_probabilities(call):
        return code_of(call)
    script.require("sklearn.calibration", "CalibratedClassifierCV")
    return f"CalibratedClassifierCV({code_of(call)}, ensemble=False)"


def _random_forest(script: Script) -> None:
    use(
        script,
        ENSEMBLE,
        "RandomForestClassifier(n_estimators=50, random_state=0)",
        "RandomForestRegressor(n_estimators=40, max_features=0.4, random_state=0)",
    )


def _extra_trees(script: Script) -> None:
    use(
        script,
        ENSEMBLE,
        "ExtraTreesClassifier(n_estimators=60, random_state=0)",
        "ExtraTreesRegressor(n_estimators=60, max_features=0.4, random_state=0)",
    )


def _boosting(script: Script) -> None:
    options = 'max_features="sqrt", random_state=0'
    # Each round fits one tree for each class, so trees are few and small.
    classifier = f"GradientBoostingClassifier(n_estimators=25, learning_rate=0.2, max_depth=2, {options})"
    use(script, ENSEMBLE, classifier, f"GradientBoostingRegressor(n_estimators=60, {options})")


def _neighbours(script: Script) -> None:
    options = 'n_neighbors=10, weights="distance"'
    use(script, "sklearn.neighbors", f"KNeighborsClassifier({options})", f"KNeighborsRegressor({options})")


def _svm(script: Script) -> None:
    use(script, "sklearn.svm", "SVC(random_state=0)", "SVR(C=100.0)")
    if script.needs_probabilities:
        script.set_estimator(parse_call(with_probabilities(script, script.core)))


def _linear(script: Script) -> None:
    use(script, "sklearn.linear_model", "LogisticRegression(max_iter=200)", "Ridge()")


def _naive_bayes(script: Script) -> None:
    if script.is_text and "TruncatedSVD" not in script.step_names():
        use(script, "sklearn.naive_bayes", "MultinomialNB(alpha=0.5)", "")
    else:
        use(script, "sklearn.naive_bayes", "GaussianNB()", "")


def _stump(script: Script) -> None:
    options = "max_depth=1, random_state=0"
    use(script, "sklearn.tree", f"DecisionTreeClassifier({options})", f"DecisionTreeRegressor({options})")


def of_one_unit(script: Script) -> None:
    """Scale the features for a model that needs columns of equal scale."""
    if not script.is_text and not SCALERS.intersection(script.step_names()):
        standardize(script)


def _neural_network(script: Script) -> None:
    classifier = "MLPClassifier(hidden_layer_sizes=(32,), learning_rate_init=0.01, max_iter=40, random_state=0)"
    regressor = "MLPRegressor(hidden_layer_sizes=(32,), learning_rate_init=0.05, max_iter=60, random_state=0)"
    use(script, "sklearn.neural_network", classifier, regressor)
    of_one_unit(script)


def _bagging(script: Script) -> None:
    if call_name(script.core).startswith(ENSEMBLES) or call_name(script.steps[-1]).startswith(ENSEMBLES):
        raise Cannot("the model is already an ensemble")
    name = script.pick("BaggingClassifier", "BaggingRegressor")
    script.require(ENSEMBLE, name)
    script.set_estimator(parse_call(f"{name}({code_of(script.core)}, n_estimators=8, random_state=0)"))


def _blend(script: Script) -> None:
    if call_name(script.core).startswith(("Voting", "Stacking")):
        raise Cannot("the model is already an average of models")
    name = script.pick("VotingClassifier", "VotingRegressor")
    forest = script.pick("ExtraTreesClassifier", "ExtraTreesRegressor")
    soft = ', voting="soft"' if script.is_classifier else ""
    script.require(ENSEMBLE, name)
    script.require(ENSEMBLE, forest)
    first = with_probabilities(script, script.core)
    second = f"{forest}(n_estimators=40, random_state=0)"
    script.set_estimator(parse_call(f'{name}([("first", {first}), ("trees", {second})]{soft})'))


RECIPES = (
    Recipe(
        "random_forest",
        "Model",
        "good",
        ALL,
        (
            "Use a random forest.",
            "Change the model to a random forest.",
            "Train a random forest.",
            "Try a random forest.",
        ),
        (r"random forests?", r"randomforest\w*"),
        _random_forest,
        gives="trees",
    ),
    Recipe(
        "extra_trees",
        "Model",
        "good",
        ALL,
        (
            "Use extra trees.",
            "Change the model to extra trees.",
            "Train extra trees.",
            "Try extra trees.",
        ),
        (r"extra ?trees?\w*", r"extremely randomi[sz]ed trees"),
        _extra_trees,
        gives="trees",
    ),
    Recipe(
        "gradient_boosting",
        "Model",
        "good",
        ALL,
        (
            "Use gradient boosting.",
            "Change the model to gradient boosting.",
            "Train gradient boosting.",
            "Try gradient boosting.",
        ),
        (r"(gradient )?boosting", r"gradientboosting\w*", r"boosted trees"),
        _boosting,
        gives="boosting",
    ),
    Recipe(
        "neighbours",
        "Model",
        "harmless",
        ALL,
        (
            "Use nearest neighbors.",
            "Change the model to nearest neighbors.",
            "Train nearest neighbors.",
            "Try nearest neighbors.",
        ),
        (r"(nearest )?neighbou?rs?", r"k-?nn"),
        _neighbours,
        gives="neighbours",
    ),
    Recipe(
        "svm",
        "Model",
        "good",
        ALL,
        (
            "Use a support vector machine.",
            "Change the model to a support vector machine.",
            "Train a support vector machine.",
            "Try a support vector machine.",
        ),
        (r"support vector( machines?)?", r"svm", r"rbf kernel"),
        _svm,
        gives="linear",
    ),
    Recipe(
        "linear_model",
        "Model",
        "harmless",
        ALL,
        (
            "Use a linear model.",
            "Change the model to a linear model.",
            "Train a linear model.",
            "Try a linear model.",
        ),
        (r"linear models?", r"(logistic|ridge|linear) regression", r"logisticregression"),
        _linear,
        gives="linear",
    ),
    Recipe(
        "naive_bayes",
        "Model",
        "harmless",
        CLASSIFICATION,
        (
            "Use naive Bayes.",
            "Change the model to naive Bayes.",
            "Train naive Bayes.",
            "Try naive Bayes.",
        ),
        (r"(naive )?bayes\w*",),
        _naive_bayes,
        gives="other",
    ),
    Recipe(
        "stump",
        "Model",
        "harmful",
        ALL,
        (
            "Use a decision stump.",
            "Change the model to a decision stump.",
            "Train a decision stump.",
            "Try a decision stump.",
        ),
        (r"(decision )?stumps?", r"single split"),
        _stump,
        gives="other",
    ),
    Recipe(
        "neural_network",
        "Model",
        "good",
        NUMERIC,
        (
            "Use a neural network.",
            "Change the model to a neural network.",
            "Train a neural network.",
            "Try a neural network.",
        ),
        (r"neural net(work)?s?", r"multi-?layer perceptron", r"hidden layer"),
        _neural_network,
        gives="network",
    ),
    Recipe(
        "bagging",
        "Model",
        "harmless",
        ALL,
        (
            "Use bagging.",
            "Bag the model.",
            "Train several models by bagging.",
            "Add bagging to the model.",
        ),
        (r"bag(ging|ged)?", r"bootstrap( samples)?"),
        _bagging,
    ),
    Recipe(
        "blend",
        "Model",
        "good",
        ALL,
        (
            "Average the model with a forest.",
            "Blend the model with a forest.",
            "Use the average of the model and a forest.",
            "Add a forest to the model and average both.",
        ),
        (r"averag\w*", r"blend\w*", r"voting"),
        _blend,
        gives="blend",
    ),
)
