"""Recipes on the Learning axis: losses, structure of trees and networks, thresholds, folds and seed averages."""

import libcst as cst
import libcst.matchers as m

from rollout.scripted.recipes.models import ENSEMBLE, with_probabilities
from rollout.scripted.recipes.nodes import Cannot, argument, call_name, code_of, keyword, parse_call, with_keyword
from rollout.scripted.recipes.parameters import PROBABILITIES
from rollout.scripted.recipes.recipe import ALL, CLASSIFICATION, NUMBERS, NUMERIC, Recipe
from rollout.scripted.recipes.script import Script
from rollout.scripted.recipes.values import lacks, searched, set_parameter

LINEAR = frozenset({"Ridge", "Lasso", "ElasticNet", "LinearRegression"})
SEEDS = 3
VALIDATION = m.Name("X_val")


def _default_parameters(script: Script) -> None:
    core = script.core
    if any(argument.keyword is None for argument in core.args):
        raise Cannot(f"the arguments of {call_name(core) or 'the model'} have no names")
    keep = {"random_state", *searched(script)}
    if script.needs_probabilities and call_name(core) in PROBABILITIES:
        keep.add(PROBABILITIES[call_name(core)][0])
    kept = [a for a in core.args if a.keyword is not None and a.keyword.value in keep]
    if len(kept) == len(core.args):
        raise Cannot("the model has its default parameters")
    kept = [argument.with_changes(comma=cst.MaybeSentinel.DEFAULT) for argument in kept]
    script.set_core(core.with_changes(args=kept))


def _robust_loss(script: Script) -> None:
    name = call_name(script.core)
    if name == "GradientBoostingRegressor":
        set_parameter(script, "loss", "huber")
    elif name in LINEAR:
        script.require("sklearn.linear_model", "HuberRegressor")
        script.set_core(parse_call("HuberRegressor(max_iter=300)"))
    else:
        raise lacks(script, "such loss")


def _split_features(script: Script) -> None:
    if not any(part in call_name(script.core) for part in ("RandomForest", "ExtraTrees", "GradientBoosting")):
        raise lacks(script, "choice of features at a split")
    set_parameter(script, "max_features", 0.4)


def _larger_layer(script: Script) -> None:
    if not call_name(script.core).startswith("MLP"):
        raise lacks(script, "hidden layer")
    name = "hidden_layer_sizes"
    sizes = keyword(script.core, name) if argument(script.core, name) else (100,)
    sizes = (sizes,) if isinstance(sizes, int) else tuple(sizes) if isinstance(sizes, list) else sizes
    if not isinstance(sizes, tuple) or not sizes or not all(isinstance(size, int) for size in sizes):
        raise Cannot(f"{name} is not written as whole numbers")
    if sizes[0] >= 128:
        raise Cannot(f"{name}={sizes} is already large")
    set_parameter(script, name, (128, *sizes[1:]))


def _threshold(script: Script) -> None:
    if not script.is_classifier:
        raise Cannot("the model predicts numbers, there is no threshold")
    if not script.holds(m.Call(func=m.Name("f1_score"))):
        raise Cannot("the metric does not depend on a threshold")
    if script.holds(m.Arg(keyword=m.Name("average"), value=~m.SimpleString('"binary"'))):
        raise Cannot("there are more than two classes")
    _wrap(script, "sklearn.model_selection", "TunedThresholdClassifierCV", 'scoring="f1", cv=3, random_state=0')


def _calibrate(script: Script) -> None:
    if not script.is_classifier:
        raise Cannot("the model predicts numbers, there are no probabilities")
    _wrap(script, "sklearn.calibration", "CalibratedClassifierCV", "ensemble=False")


def _wrap(script: Script, module: str, name: str, arguments: str) -> None:
    last = code_of(script.steps[-1])
    if f"{name}(" in last:
        raise Cannot(f"{name} is already there")
    script.require(module, name)
    script.set_steps([*script.steps[:-1], parse_call(f"{name}({last}, {arguments})")])


def _five_folds(script: Script) -> None:
    def everywhere(node: cst.CSTNode) -> cst.CSTNode:
        if isinstance(node, cst.Name):
            return node.with_changes(value="y")
        method = ', method="predict_proba"' if m.findall(node, m.Name("predict_proba")) else ""
        return cst.parse_expression(f"cross_val_predict(model, X, y, cv=5{method})")

    predictions = m.Call(
        func=m.Attribute(m.Name("model"), m.Name("predict") | m.Name("predict_proba")), args=[m.Arg(VALIDATION)]
    )
    score = script.expression("score")
    if not m.findall(score, predictions) or not m.findall(score, m.Name("y_val")):
        raise Cannot("the score is not that of a validation set")
    new = m.replace(score, predictions | m.Name("y_val"), lambda node, _: everywhere(node))  # type: ignore[arg-type]
    assert isinstance(new, cst.BaseExpression)
    script.require("sklearn.model_selection", "cross_val_predict")
    script.assign("score", new)


def _seed_average(script: Script) -> None:
    core = script.core
    if not isinstance(keyword(core, "random_state"), int):
        raise lacks(script, "seed")
    if "GridSearchCV(" in code_of(script.steps[-1]):
        raise Cannot("the search tunes a single model")
    name = script.pick("VotingClassifier", "VotingRegressor")
    script.require(ENSEMBLE, name)
    models = [with_keyword(core, "random_state", seed) for seed in range(SEEDS)]
    each = [f'("seed{seed}", {with_probabilities(script, model)})' for seed, model in enumerate(models)]
    soft = ', voting="soft"' if script.is_classifier else ""
    script.set_core(parse_call(f"{name}([{', '.join(each)}]{soft})"))


RECIPES = (
    Recipe(
        "default_parameters",
        "Learning",
        "good",
        ALL,
        (
            "Use default parameters.",
            "Reset the parameters of the model.",
            "Use the default parameters of the model.",
            "Train with default parameters.",
        ),
        (r"default (parameters|settings|values)( of the model)?", r"reset the (parameters|model)"),
        _default_parameters,
        needs=("",),
    ),
    Recipe(
        "robust_loss",
        "Learning",
        "harmless",
        NUMBERS,
        (
            "Use the Huber loss.",
            "Train with the Huber loss.",
            "Change the loss to the Huber loss.",
            "Use a robust loss.",
        ),
        (r"huber( loss)?( to the huber loss)?", r"robust loss"),
        _robust_loss,
        needs=("linear", "boosting"),
    ),
    Recipe(
        "split_features",
        "Learning",
        "harmless",
        ALL,
        (
            "Use part of the features at each split.",
            "Train with part of the features at each split.",
            "Give each split part of the features.",
            "Use part of the features in each split.",
        ),
        (
            r"(part|some|two fifths) of the features (at|in|for) each split",
            r"(more|fewer) features (at|in|for) each split",
            r"each split part of the features",
            r"max_features",
        ),
        _split_features,
        needs=("trees", "boosting"),
    ),
    Recipe(
        "larger_layer",
        "Learning",
        "good",
        NUMERIC,
        (
            "Use a larger hidden layer.",
            "Make the hidden layer larger.",
            "Train with a larger hidden layer.",
            "Train a larger hidden layer.",
        ),
        (r"(larger|bigger|wider) hidden layer", r"hidden layer (larger|bigger|wider)", r"hidden_layer_sizes"),
        _larger_layer,
        needs=("network",),
    ),
    Recipe(
        "threshold",
        "Learning",
        "good",
        ("tabular-classification",),
        (
            "Tune the threshold.",
            "Use the best threshold.",
            "Change the threshold of the classes.",
            "Tune the threshold of the model.",
        ),
        (r"((tun|lower|rais|reduc|mov)\w* )?(the )?(best )?(decision )?thresholds?( of the (model|classes))?",),
        _threshold,
    ),
    Recipe(
        "calibrate",
        "Learning",
        "harmless",
        CLASSIFICATION,
        (
            "Calibrate the model.",
            "Calibrate the probabilities.",
            "Use calibrated probabilities.",
            "Add a step that calibrates the model.",
        ),
        (r"calibrat\w*",),
        _calibrate,
    ),
    Recipe(
        "five_folds",
        "Learning",
        "harmless",
        ALL,
        (
            "Validate on five folds.",
            "Use five folds.",
            "Validate by five folds.",
            "Use a validation on five folds.",
        ),
        (r"(validat\w* )?(on |by )?(five|5)([ -]folds?| parts)",),
        _five_folds,
    ),
    Recipe(
        "seed_average",
        "Learning",
        "harmless",
        ALL,
        (
            "Average three seeds.",
            "Use the average of three seeds.",
            "Train the model on three seeds.",
            "Average the model over three seeds.",
        ),
        (
            r"averag\w*( the model)?( of| over)? (three|several|many) seeds",
            r"(three|several|many) seeds",
        ),
        _seed_average,
        needs=("trees", "boosting", "network"),
    ),
)
