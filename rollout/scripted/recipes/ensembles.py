"""Recipes on the Model axis: models for dense columns, stacking, xgboost, and a constant prediction."""

from rollout.scripted.recipes.models import ENSEMBLE, of_one_unit, use, with_probabilities
from rollout.scripted.recipes.nodes import Cannot, call_name, code_of, parse_call
from rollout.scripted.recipes.recipe import ALL, CLASSIFICATION, NUMERIC, Recipe
from rollout.scripted.recipes.script import Script

DENSE = ("HistGradientBoosting", "LinearDiscriminant", "GaussianProcess", "GaussianNB")


def _dense(script: Script) -> None:
    if script.is_text and "TruncatedSVD" not in script.step_names():
        raise Cannot("this model takes no counts of words")


def _hist_boosting(script: Script) -> None:
    _dense(script)
    options = "max_iter=40, max_leaf_nodes=15, random_state=0"
    use(script, ENSEMBLE, f"HistGradientBoostingClassifier({options})", f"HistGradientBoostingRegressor({options})")


def _discriminant(script: Script) -> None:
    _dense(script)
    use(
        script,
        "sklearn.discriminant_analysis",
        'LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")',
        "",
    )


def _linear_svm(script: Script) -> None:
    use(script, "sklearn.svm", "LinearSVC(random_state=0)", "LinearSVR(C=1.0, random_state=0)")
    if script.needs_probabilities:
        script.set_estimator(parse_call(with_probabilities(script, script.core)))
    of_one_unit(script)


def _stacking(script: Script) -> None:
    if call_name(script.core).startswith("Stacking"):
        raise Cannot("the model is already a stack of models")
    name = script.pick("StackingClassifier", "StackingRegressor")
    forest = script.pick("ExtraTreesClassifier", "ExtraTreesRegressor")
    script.require(ENSEMBLE, name)
    script.require(ENSEMBLE, forest)
    second = f"{forest}(n_estimators=40, random_state=0)"
    script.set_estimator(parse_call(f'{name}([("first", {code_of(script.core)}), ("trees", {second})], cv=3)'))


def _constant(script: Script) -> None:
    use(script, "sklearn.dummy", "DummyClassifier()", "DummyRegressor()")


def _gaussian_process(script: Script) -> None:
    # Fitting the kernel takes many operations on matrices of all rows.
    _dense(script)
    options = "kernel=1.0 * RBF() + WhiteKernel(), n_restarts_optimizer=20, random_state=0"
    if script.is_classifier:
        options = "kernel=1.0 * RBF(), n_restarts_optimizer=20, random_state=0"
    code = f"GaussianProcessClassifier({options})", f"GaussianProcessRegressor({options})"
    use(script, "sklearn.gaussian_process", *code)
    script.require("sklearn.gaussian_process.kernels", "RBF")
    if not script.is_classifier:
        script.require("sklearn.gaussian_process.kernels", "WhiteKernel")


def _xgboost(script: Script) -> None:
    use(script, "xgboost", "XGBClassifier(random_state=0)", "XGBRegressor(random_state=0)")


RECIPES = (
    Recipe(
        "hist_boosting",
        "Model",
        "good",
        NUMERIC,
        (
            "Use histogram boosting.",
            "Change the model to histogram boosting.",
            "Train histogram boosting.",
            "Try histogram boosting.",
        ),
        (r"hist(ogram)?([ -]based)?( gradient)?[ -]?boosting", r"histgradientboosting\w*"),
        _hist_boosting,
        gives="boosting",
    ),
    Recipe(
        "discriminant",
        "Model",
        "good",
        tuple(kind for kind in CLASSIFICATION if kind in NUMERIC),
        (
            "Use discriminant analysis.",
            "Change the model to discriminant analysis.",
            "Train discriminant analysis.",
            "Try discriminant analysis.",
        ),
        (r"(linear )?discriminant( analysis)?", r"lda"),
        _discriminant,
        gives="other",
    ),
    Recipe(
        "linear_svm",
        "Model",
        "good",
        ALL,
        (
            "Use a linear support vector machine.",
            "Change the model to a linear support vector machine.",
            "Train a linear support vector machine.",
            "Try a linear support vector machine.",
        ),
        (r"linear support vector( machines?)?", r"linear ?sv[cmr]"),
        _linear_svm,
        gives="linear",
    ),
    Recipe(
        "stacking",
        "Model",
        "good",
        ALL,
        (
            "Stack the model with a forest.",
            "Use stacking.",
            "Train a stack of the model and a forest.",
            "Add stacking to the model.",
        ),
        (r"stack(ing|ed)?",),
        _stacking,
        gives="blend",
    ),
    Recipe(
        "constant",
        "Model",
        "harmful",
        ALL,
        (
            "Use a constant.",
            "Change the model to a constant.",
            "Train a constant.",
            "Try a constant.",
        ),
        (r"constants?", r"dummy (model|classifier|regressor)"),
        _constant,
        gives="other",
    ),
    Recipe(
        "gaussian_process",
        "Model",
        "slow",
        NUMERIC,
        (
            "Use a Gaussian process.",
            "Change the model to a Gaussian process.",
            "Train a Gaussian process.",
            "Try a Gaussian process.",
        ),
        (r"gaussian process(es)?",),
        _gaussian_process,
        gives="other",
    ),
    Recipe(
        "xgboost",
        "Model",
        "crash",
        ALL,
        (
            "Use XGBoost.",
            "Change the model to XGBoost.",
            "Train XGBoost.",
            "Try XGBoost.",
        ),
        (r"xgb\w*",),
        _xgboost,
        gives="boosting",
    ),
)
