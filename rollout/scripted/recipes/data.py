"""Recipes on the Data axis that change the rows and columns that the model sees."""

import re

import libcst as cst
import libcst.matchers as m

from rollout.scripted.recipes.frame import fill_code, require_follows, require_numeric, table_code, without_fill
from rollout.scripted.recipes.nodes import Cannot, call_name, code_of, operand, parse_call, with_keyword
from rollout.scripted.recipes.recipe import ALL, NUMERIC, REGRESSION, TABULAR, TAKE_AWAY, Recipe
from rollout.scripted.recipes.script import VECTORIZERS, Script

ENCODERS = frozenset({"make_column_transformer"})
IMPUTERS = frozenset({"SimpleImputer"}) | ENCODERS  # the encoder imputes too
SCALERS = frozenset(
    {"StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler", "QuantileTransformer", "PowerTransformer"}
)

TARGET = re.compile(r"y(_\w+)?")  # names of the target, or a part of its rows
LOGARITHM = m.Name("log") | m.Name("log1p") | m.Name("log2") | m.Name("log10")


def position_after(script: Script, names: frozenset[str]) -> int:
    """Return the index after the last step called one of `names`, and after the vectorizer of texts."""
    start = int(script.is_text)
    return max((i + 1 for i, name in enumerate(script.step_names()[:-1]) if name in names), default=start)


def scale(script: Script, code: str) -> None:
    """Put the scaler `code` before the model, or in place of another scaler."""
    call = parse_call(code)
    if script.is_text and call_name(call) == "StandardScaler":
        call = with_keyword(call, "with_mean", False)
    steps, names = script.steps, script.step_names()
    old = next((i for i, name in enumerate(names[:-1]) if name in SCALERS), None)
    if old is None:
        script.add_step("sklearn.preprocessing", code_of(call), position_after(script, IMPUTERS | VECTORIZERS))
        return
    if names[old] == call_name(call):
        raise Cannot(f"{names[old]} is already in the pipeline")
    script.require("sklearn.preprocessing", call_name(call))
    script.set_steps([*steps[:old], call, *steps[old + 1 :]])


def standardize(script: Script) -> None:
    """Put a StandardScaler before the model, or in place of another scaler."""
    scale(script, "StandardScaler()")


def _to_range(script: Script) -> None:
    scale(script, "MinMaxScaler()" if not script.is_text else "MaxAbsScaler()")


def _quantiles(script: Script) -> None:
    require_numeric(script)
    scale(script, 'QuantileTransformer(n_quantiles=100, output_distribution="normal", random_state=0)')


def _one_hot(script: Script) -> None:
    table = table_code(script)
    if "get_dummies" in code_of(script.expression("X")):
        raise Cannot("the categorical columns are already encoded")
    fill = fill_code(script)
    script.assign("X", f"pd.get_dummies({table}, dtype=float){fill}")
    script.assign("X_test", f"pd.get_dummies(test, dtype=float).reindex(columns=X.columns, fill_value=0){fill}")


def _all_columns(script: Script) -> None:
    table = table_code(script)
    require_follows(script)
    if table in code_of(script.expression("X")):
        raise Cannot("the script already uses all columns of this type")
    script.assign("X", f'{table}.select_dtypes("number"){fill_code(script)}')


def unfilled(script: Script) -> None:
    """Stop filling missing values in both tables, which leaves them to the pipeline."""
    for name in ("X", "X_test"):
        script.assign(name, without_fill(script.expression(name)))


def _impute(script: Script) -> None:
    require_numeric(script)
    if ENCODERS.intersection(script.step_names()):
        raise Cannot("the encoder fills the gaps already")
    script.add_step("sklearn.impute", 'SimpleImputer(strategy="median")', 0)
    unfilled(script)


def _log_target(script: Script) -> None:
    if script.is_classifier:
        raise Cannot("the target is a class, it has no logarithm")
    if "TransformedTargetRegressor" in script.step_names():
        raise Cannot("the target is already transformed")
    if _takes_logarithms(script):
        raise Cannot("the script takes a logarithm of the target itself")
    script.require("sklearn.compose", "TransformedTargetRegressor")
    script.require_numpy()
    inner = code_of(script.steps[-1])
    wrapped = parse_call(f"TransformedTargetRegressor({inner}, func=np.log1p, inverse_func=np.expm1)")
    script.set_steps([*script.steps[:-1], wrapped])


def _takes_logarithms(script: Script) -> bool:
    """Return whether a line takes the logarithm of the target, or inverts one."""
    lines = [node for node in m.findall(script.module, m.Assign()) if isinstance(node, cst.Assign)]
    fits = m.findall(script.module, m.Call(func=m.Attribute(attr=m.Name("fit"))))
    target = [line.value for line in lines if any(TARGET.fullmatch(code_of(each.target)) for each in line.targets)]
    columns = {code_of(node) for value in target for node in [value, *m.findall(value, m.Subscript())]}
    made = [line.value for line in lines if any(code_of(each.target) in columns for each in line.targets)]
    return script.holds(m.Name("expm1")) or any(m.findall(node, LOGARITHM) for node in (*target, *made, *fits))


def _splines(script: Script) -> None:
    require_numeric(script)
    position = position_after(script, IMPUTERS | SCALERS)
    script.add_step("sklearn.preprocessing", "SplineTransformer(n_knots=4)", position)


def _products(script: Script) -> None:
    require_numeric(script)
    position = position_after(script, IMPUTERS | SCALERS)
    script.add_step("sklearn.preprocessing", "PolynomialFeatures()", position)


def _components(script: Script) -> None:
    if call_name(script.core) == "MultinomialNB":
        raise Cannot("naive Bayes takes counts, not components")
    code = "TruncatedSVD(n_components=2, random_state=0)" if script.is_text else "PCA(n_components=2, random_state=0)"
    script.add_step("sklearn.decomposition", code, len(script.steps) - 1)


def _select(script: Script) -> None:
    score = script.pick("f_classif", "f_regression")
    script.require("sklearn.feature_selection", score)
    script.add_step("sklearn.feature_selection", f"SelectPercentile({score}, percentile=40)", len(script.steps) - 1)


def _half_rows(script: Script) -> None:
    rows = operand(script.expression("train"))
    if ".sample(" in rows:
        raise Cannot("the script already uses a part of the rows")
    script.assign("train", f"{rows}.sample(frac=0.4, random_state=0)")


RECIPES = (
    Recipe(
        "standardize",
        "Data",
        "good",
        NUMERIC,
        (
            "Standardize the features.",
            "Use StandardScaler.",
            "Scale the features to unit variance.",
            "Add a step that standardizes the features.",
        ),
        (r"standardi[sz]\w*", r"standard ?scaler", r"(zero mean and )?unit variance"),
        standardize,
    ),
    Recipe(
        "scale_to_range",
        "Data",
        "harmless",
        NUMERIC,
        (
            "Scale the features to a range from zero to one.",
            "Use MinMaxScaler.",
            "Add min max scaling.",
            "Scale the features between zero and one.",
        ),
        (r"min[ -]?max\w*", r"(from|between|range) zero (to|and) one", r"same range"),
        _to_range,
    ),
    Recipe(
        "quantiles",
        "Data",
        "good",
        TABULAR,
        (
            "Transform the features by quantiles.",
            "Use QuantileTransformer.",
            "Add a quantile transform of the features.",
            "Map the features to a normal distribution.",
        ),
        (r"quantile\w*", r"(normal|gaussian) distribution"),
        _quantiles,
    ),
    Recipe(
        "all_columns",
        "Data",
        "good",
        NUMERIC,
        (
            "Use all numeric columns.",
            "Use all numeric features.",
            "Add all numeric columns.",
            "Train on all numeric columns.",
        ),
        (r"(all|every|more)( the)?( numeric)? (columns?|features?|pixels?)", r"(columns|features|pixels) left out"),
        _all_columns,
    ),
    Recipe(
        "one_hot",
        "Data",
        "good",
        TABULAR,
        (
            "Encode the categorical columns.",
            "Use one-hot encoding for the categorical columns.",
            "Use all columns with one-hot encoding.",
            "Add the categorical columns as dummies.",
        ),
        (r"(all columns with |use )?one[ -]?hot\w*", r"categorical\w*( columns)?( as dummies)?", r"dumm(y|ies)"),
        _one_hot,
    ),
    Recipe(
        "median_impute",
        "Data",
        "good",
        TABULAR,
        (
            "Impute missing values with the median.",
            "Use SimpleImputer with the median.",
            "Fill missing values with the median.",
            "Add a median imputer.",
        ),
        (r"imput\w*", r"median", r"((replace|get rid of|no)( the| all| any)* )?missing values?", r"simple ?imputer"),
        _impute,
    ),
    Recipe(
        "log_target",
        "Data",
        "good",
        REGRESSION,
        (
            "Take the logarithm of the target.",
            "Log-transform the target.",
            "Train on the log of the target.",
            "Use the log target.",
        ),
        (r"log(arithm)?[ -]?(transform(ed)?|scale)?( of)? (the )?target", r"target on a log scale"),
        _log_target,
    ),
    Recipe(
        "splines",
        "Data",
        "good",
        NUMERIC,
        (
            "Add spline features.",
            "Use SplineTransformer.",
            "Transform the features by splines.",
            "Add splines of the features.",
        ),
        (r"spline\w*",),
        _splines,
    ),
    Recipe(
        "products",
        "Data",
        "harmless",
        NUMERIC,
        (
            "Add polynomial features.",
            "Use PolynomialFeatures.",
            "Add squares and products of the features.",
            "Add products of the features.",
        ),
        (r"polynomial\w*", r"squares? and products?", r"products? of", r"interactions?"),
        _products,
    ),
    Recipe(
        "two_components",
        "Data",
        "harmful",
        ALL,
        (
            "Use PCA with two components.",
            "Reduce the features to two components.",
            "Keep two components of the features.",
            "Add PCA.",
        ),
        (r"pca( with)?( two components?)?", r"(two|few) (principal )?components?", r"principal components?"),
        _components,
    ),
    Recipe(
        "select_best",
        "Data",
        "harmless",
        ALL,
        (
            "Select the best features.",
            "Keep the best features.",
            "Add feature selection.",
            "Remove the weak features.",
        ),
        (
            r"(best|strongest|informative|relevant) features",
            r"feature selection",
            rf"{TAKE_AWAY}(weak|useless|noisy) features",
        ),
        _select,
    ),
    Recipe(
        "half_rows",
        "Data",
        "harmful",
        ALL,
        (
            "Train on half of the rows.",
            "Drop half of the rows.",
            "Use a sample of the rows.",
            "Keep half of the rows.",
        ),
        (
            rf"{TAKE_AWAY}half( of)?( the)?( training)? (rows|data)",
            r"(sample|subset|part) of the (rows|data)",
            r"fewer rows",
        ),
        _half_rows,
    ),
)
