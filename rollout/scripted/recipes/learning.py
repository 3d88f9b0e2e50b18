"""Recipes on the Learning axis: regularization, iterations, learning rates, search and validation."""

import libcst as cst
import libcst.matchers as m

from rollout.scripted.recipes.nodes import Cannot, call_name, code_of, keyword, parse_call
from rollout.scripted.recipes.parameters import CAN_WEIGH, ITERATIONS, LEARNING_RATE, REGULARISATION
from rollout.scripted.recipes.recipe import ALL, CLASSIFICATION, Recipe
from rollout.scripted.recipes.script import Script
from rollout.scripted.recipes.values import lacks, number, set_parameter


def _regularise(script: Script, direction: int) -> None:
    if (entry := REGULARISATION.get(call_name(script.core))) is None:
        raise lacks(script, "regularisation")
    name, default, sign = entry
    old = number(script.core, name, default)
    depth = keyword(script.core, "max_depth")
    if direction > 0 and name == "min_samples_leaf" and old == 1 and isinstance(depth, int):
        set_parameter(script, "max_depth", depth * 2)  # depth is what limits such trees
        return
    if isinstance(default, int):  # for a count of rows a factor of ten is too much
        if not isinstance(old, int):
            raise Cannot(f"{name}={old} is not a count")
        new: float = max(1, old * 4 if direction * sign > 0 else old // 4)
    else:
        new = float(f"{old * 10.0 ** (direction * sign):.6g}")
    if new == old:
        raise Cannot(f"{name} cannot be less than {old}")
    set_parameter(script, name, new)


def _weaker(script: Script) -> None:
    _regularise(script, 1)


def _stronger(script: Script) -> None:
    _regularise(script, -1)


def _more_iterations(script: Script) -> None:
    if (entry := ITERATIONS.get(call_name(script.core))) is None:
        raise lacks(script, "iterations")
    name, default = entry
    old = int(number(script.core, name, default))
    limit = 120 if name == "n_estimators" else 1000
    if old >= limit:
        raise Cannot(f"{name}={old} is already enough")
    set_parameter(script, name, min(old * (3 if name == "n_estimators" else 10), limit))


def _trees(script: Script) -> None:
    name = call_name(script.core)
    if not any(part in name for part in ("Forest", "Trees", "Tree", "GradientBoosting")):
        raise lacks(script, "trees")


def _more_trees(script: Script) -> None:
    _trees(script)
    kind = call_name(script.core)
    if kind.startswith(("DecisionTree", "ExtraTreeC", "ExtraTreeR")):
        raise lacks(script, "number of trees")
    name = "max_iter" if kind.startswith("HistGradientBoosting") else "n_estimators"
    old = int(number(script.core, name, 100))
    if old >= 120:
        raise Cannot(f"{name}={old} is already enough")
    set_parameter(script, name, min(old * 3, 120))


def _depth(script: Script) -> int:
    """Return the maximum depth of the trees, 0 if there is no limit."""
    default = 3 if call_name(script.core).startswith("GradientBoosting") else 0
    return int(number(script.core, "max_depth", default, none=0))


def _deeper(script: Script) -> None:
    _trees(script)
    old = _depth(script)
    if not 0 < old < 20:
        raise Cannot("the depth of the trees is not limited")
    set_parameter(script, "max_depth", old * 2)


def _shallower(script: Script) -> None:
    _trees(script)
    if 0 < _depth(script) <= 2:
        raise Cannot("the trees are already shallow")
    set_parameter(script, "max_depth", 2)


def _learning_rate(script: Script) -> tuple[str, float, float]:
    if (entry := LEARNING_RATE.get(call_name(script.core))) is None:
        raise lacks(script, "learning rate")
    return entry


def _set_rate(script: Script, value: float) -> None:
    name, _, _ = _learning_rate(script)
    set_parameter(script, name, value)
    if name == "eta0" and keyword(script.core, "learning_rate") in (None, "optimal"):
        set_parameter(script, "learning_rate", "constant")  # the default schedule ignores the rate


def _lower_rate(script: Script) -> None:
    name, default, _ = _learning_rate(script)
    _set_rate(script, float(f"{number(script.core, name, default) * 0.3:.6g}"))


def _huge_rate(script: Script) -> None:
    _set_rate(script, _learning_rate(script)[2])


def _class_weights(script: Script) -> None:
    if call_name(script.core) not in CAN_WEIGH:
        raise lacks(script, "class weights")
    set_parameter(script, "class_weight", "balanced")


def _tune(script: Script) -> None:
    entry = REGULARISATION.get(call_name(script.core))
    if entry is None or call_name(script.core) in ("SVC", "SVR"):
        raise lacks(script, "parameter to tune")
    name, default, _ = entry
    values = [1, 4, 16] if isinstance(default, int) else [0.01, 1.0, 100.0]
    _search(script, f'{{"{name}": {values}}}, cv=2')


def _search(script: Script, arguments: str) -> None:
    if "GridSearchCV(" in code_of(script.steps[-1]):
        raise Cannot("the parameters are already searched")
    script.require("sklearn.model_selection", "GridSearchCV")
    core = script.core
    script.set_core(parse_call(f"GridSearchCV({code_of(core)}, {arguments})"))


def _exhaustive(script: Script) -> None:
    # Thousands of fits of any model exceed every time limit, as such a search does.
    name, default, _ = REGULARISATION.get(call_name(script.core), ("random_state", 0, 1))
    if isinstance(default, int):
        grid = f'{{"{name}": range(1, 2000)}}'
    else:
        grid = f'{{"{name}": [0.0001 * 1.01**i for i in range(2000)]}}'
    _search(script, f"{grid}, cv=20")


def _seed(script: Script) -> None:
    def next_number(node: cst.CSTNode) -> cst.CSTNode:
        assert isinstance(node, cst.Arg | cst.Assign) and isinstance(node.value, cst.Integer)
        return node.with_changes(value=cst.Integer(str(node.value.evaluated_value + 1)))

    argument = m.Arg(keyword=m.Name("random_state"), value=m.Integer())
    constant = m.Assign(targets=[m.AssignTarget(m.Name("SEED"))], value=m.Integer())
    script.replace(argument | constant, next_number, "the script has no seed")


def _holdout(script: Script) -> None:
    def smaller(node: cst.CSTNode) -> cst.CSTNode:
        assert isinstance(node, cst.Arg) and isinstance(node.value, cst.Float)
        return node.with_changes(value=cst.Float("0.15")) if node.value.evaluated_value > 0.15 else node

    size = m.Arg(keyword=m.Name("test_size"), value=m.Float())
    script.replace(size, smaller, "the validation set is already small")


RECIPES = (
    Recipe(
        "more_iterations",
        "Learning",
        "good",
        ALL,
        (
            "Train for more iterations.",
            "Use more iterations.",
            "Train longer.",
            "Train with more iterations.",
        ),
        (r"more iterations?", r"(train|fit|run)( the model)? longer", r"max_iter\w*"),
        _more_iterations,
        needs=("linear", "boosting", "network"),
    ),
    Recipe(
        "weaker_regularisation",
        "Learning",
        "good",
        ALL,
        (
            "Use weaker regularization.",
            "Make the regularization weaker.",
            "Use less regularization.",
            "Train with weaker regularization.",
        ),
        (
            r"(weaker|less|lower) (regulari[sz]ation|penalty)",
            r"(regulari[sz]ation|penalty) weaker",
            r"regulari[sz]e less",
        ),
        _weaker,
        needs=("", "linear", "neighbours"),
    ),
    Recipe(
        "stronger_regularisation",
        "Learning",
        "harmless",
        ALL,
        (
            "Use stronger regularization.",
            "Make the regularization stronger.",
            "Use more regularization.",
            "Train with stronger regularization.",
        ),
        (
            r"(stronger|more|higher) (regulari[sz]ation|penalty)",
            r"(regulari[sz]ation|penalty) stronger",
            r"regulari[sz]e more",
        ),
        _stronger,
        needs=("", "linear", "trees", "neighbours"),
    ),
    Recipe(
        "more_trees",
        "Learning",
        "good",
        ALL,
        (
            "Use more trees.",
            "Train with more trees.",
            "Train more trees.",
            "Add more trees.",
        ),
        (r"more trees", r"number of trees", r"n_estimators"),
        _more_trees,
        needs=("trees", "boosting"),
    ),
    Recipe(
        "deeper_trees",
        "Learning",
        "harmless",
        ALL,
        (
            "Use deeper trees.",
            "Make the trees deeper.",
            "Train deeper trees.",
            "Train with deeper trees.",
        ),
        (r"deeper( trees)?", r"trees deeper"),
        _deeper,
        needs=("", "boosting"),
    ),
    Recipe(
        "shallower_trees",
        "Learning",
        "harmful",
        ALL,
        (
            "Use shallow trees.",
            "Make the trees shallow.",
            "Train shallow trees.",
            "Train with shallow trees.",
        ),
        (r"shallow(er)?( trees)?",),
        _shallower,
        needs=("trees", "boosting"),
    ),
    Recipe(
        "lower_learning_rate",
        "Learning",
        "harmless",
        ALL,
        (
            "Use a lower learning rate.",
            "Make the learning rate lower.",
            "Train with a lower learning rate.",
            "Train at a lower learning rate.",
        ),
        (r"(lower|smaller|reduced?)( the)? learning rate", r"learning rate (lower|smaller)"),
        _lower_rate,
        needs=("boosting", "network"),
    ),
    Recipe(
        "huge_learning_rate",
        "Learning",
        "harmful",
        ALL,
        (
            "Use a very high learning rate.",
            "Make the learning rate very high.",
            "Train with a very high learning rate.",
            "Train at a very high learning rate.",
        ),
        (r"(high|higher|large|huge) learning rate", r"learning rate (very )?(high|higher|large|huge)"),
        _huge_rate,
        needs=("boosting", "network"),
    ),
    Recipe(
        "class_weights",
        "Learning",
        "harmless",
        CLASSIFICATION,
        (
            "Use balanced class weights.",
            "Weight the classes.",
            "Add class weights.",
            "Train with class weights.",
        ),
        (r"(balanced )?class weights?", r"weight the classes", r"balance the classes"),
        _class_weights,
        needs=("", "linear", "trees"),
    ),
    Recipe(
        "tune",
        "Learning",
        "good",
        ALL,
        (
            "Tune the model by cross validation.",
            "Use cross validation.",
            "Tune the model.",
            "Add a small search by cross validation.",
        ),
        (
            r"(tune|tuning)\b((?! and ).){0,30}cross[ -]validation",
            r"cross[ -]validat\w*",
            r"\b(tune|tuning)\b",
            r"small search",
        ),
        _tune,
        needs=("", "linear", "trees", "neighbours"),
    ),
    Recipe(
        "exhaustive_search",
        "Learning",
        "slow",
        ALL,
        (
            "Search all values of the parameters.",
            "Use a full grid search.",
            "Run a full grid search.",
            "Add a full grid search.",
        ),
        (r"(full|exhaustive|large) (grid )?search", r"grid search", r"search all( values)?"),
        _exhaustive,
    ),
    Recipe(
        "new_seed",
        "Learning",
        "harmless",
        ALL,
        (
            "Change the seed.",
            "Use another seed.",
            "Train with another seed.",
            "Try another seed.",
        ),
        (r"seeds?", r"random_state"),
        _seed,
    ),
    Recipe(
        "smaller_holdout",
        "Learning",
        "harmless",
        ALL,
        (
            "Validate on fewer rows.",
            "Make the validation set smaller.",
            "Use a smaller validation set.",
            "Train with a smaller validation set.",
        ),
        (r"validat\w* on fewer rows", r"validation (set|part) smaller", r"smaller validation( set| part)?"),
        _holdout,
    ),
)
