"""The edits of the coder's benchmark: what a person would ask for, and a property of the script that shows it done."""

import ast
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rollout.scripted.expert import recipes_for
from rollout.scripted.recipes import Cannot, apply
from tasks.task import Instance, Task, draw_instance

REGRESSION = ("tabular-regression",)
CLASSIFICATION = ("tabular-classification", "image-classification")
TEXT = ("text-classification",)
TABULAR = ("tabular-classification", "tabular-regression")
NUMERIC = (*TABULAR, "image-classification")
ALL = (*NUMERIC, *TEXT)
SCALERS = ("StandardScaler", "MinMaxScaler", "RobustScaler", "QuantileTransformer", "PowerTransformer")
MAX_RECIPES = 2  # before the edit


@dataclass(frozen=True)
class Edit:
    """An edit that the benchmark asks for.

    Attributes:
        name: Its name in records.
        kinds: The kinds of task whose scripts it suits.
        instructions: The instruction, in several wordings.
        done: Whether a script has the property that the edit asks for.
        needs: A text that a script must contain, so that there is something to edit.
    """

    name: str
    kinds: tuple[str, ...]
    instructions: tuple[str, ...]
    done: Callable[[ast.Module], bool]
    needs: str = ""

    def fits(self, kind: str, source: str) -> bool:
        """Return whether a script of a task of this kind can be asked for the edit, and does not have it yet."""
        return kind in self.kinds and self.needs in source and not self.done(ast.parse(source))


@dataclass(frozen=True)
class Pair:
    """A script and what is asked of it.

    Attributes:
        name: A name that is unique in the benchmark.
        instance: The task under the names of the script.
        recipes: The recipes that made the script from the initial one.
        source: The script.
        edit: The edit.
        instruction: Its wording.
    """

    name: str
    instance: Instance
    recipes: tuple[str, ...]
    source: str
    edit: Edit
    instruction: str


def _calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """Yield the name of each call, without the object or module that it is an attribute of, and the call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute):
                yield node.func.attr, node
            elif isinstance(node.func, ast.Name):
                yield node.func.id, node


def calls(*names: str) -> Callable[[ast.Module], bool]:
    """Return a property: the script calls one of these functions or classes."""
    return lambda tree: any(name in names for name, _ in _calls(tree))


def has_value(keyword: str, value: object, *callees: str) -> Callable[[ast.Module], bool]:
    """Return a property: the keyword has this value wherever it is given, in calls of `callees` if they are stated."""

    def check(tree: ast.Module) -> bool:
        given = [
            ast.unparse(each.value)
            for name, call in _calls(tree)
            for each in call.keywords
            if each.arg == keyword and (not callees or name in callees)
        ]
        return bool(given) and set(given) == {repr(value)}

    return check


def every(*properties: Callable[[ast.Module], bool]) -> Callable[[ast.Module], bool]:
    """Return a property: all of these."""
    return lambda tree: all(holds(tree) for holds in properties)


def mentions(*words: str) -> Callable[[ast.Module], bool]:
    """Return a property: a text or an attribute of the script is one of these words."""

    def check(tree: ast.Module) -> bool:
        return any(
            (isinstance(node, ast.Constant) and node.value in words)
            or (isinstance(node, ast.Attribute) and node.attr in words)
            for node in ast.walk(tree)
        )

    return check


def _uses_all_columns(tree: ast.Module) -> bool:
    columns = (call for name, call in _calls(tree) if name in ("select_dtypes", "drop"))
    lists = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.List) and len(node.slice.elts) > 2
    ]
    return any(columns) and not lists


def _prints_rows(tree: ast.Module) -> bool:
    prints = [call for name, call in _calls(tree) if name == "print"]
    return len(prints) >= 2 and any("len(" in ast.unparse(call) or "shape[0]" in ast.unparse(call) for call in prints)


def _fills_with_medians(tree: ast.Module) -> bool:
    zeros = [call for name, call in _calls(tree) if name == "fillna" and [*map(ast.unparse, call.args)] == ["0"]]
    return mentions("median")(tree) and not zeros


def _uses_log_target(tree: ast.Module) -> bool:
    into = mentions("log1p", "log")(tree)
    return calls("TransformedTargetRegressor")(tree) or (into and mentions("expm1", "exp")(tree))


EDITS: tuple[Edit, ...] = (
    Edit(
        "boosting_classifier",
        CLASSIFICATION,
        ("Use a gradient boosting classifier as the model.", "Replace the current classifier with gradient boosting."),
        calls("GradientBoostingClassifier", "HistGradientBoostingClassifier"),
    ),
    Edit(
        "boosting_regressor",
        REGRESSION,
        ("Use a gradient boosting regressor as the model.", "Replace the current regressor with gradient boosting."),
        calls("GradientBoostingRegressor", "HistGradientBoostingRegressor"),
    ),
    Edit(
        "forest",
        ALL,
        ("Replace the model with a random forest of 150 trees.", "Switch to a random forest with 150 estimators."),
        has_value("n_estimators", 150, "RandomForestClassifier", "RandomForestRegressor"),
    ),
    Edit(
        "linear_model",
        ("tabular-classification", *TEXT),
        ("Try logistic regression with max_iter=1000 as the model.", "Train a logistic regression, max_iter=1000."),
        has_value("max_iter", 1000, "LogisticRegression"),
    ),
    Edit(
        "depth",
        ALL,
        ("Set max_depth to 8.", "The trees are too shallow: allow a depth of 8."),
        has_value("max_depth", 8),
        "max_depth=",
    ),
    Edit(
        "trees",
        ALL,
        ("Use 300 trees.", "Increase n_estimators to 300."),
        has_value("n_estimators", 300),
        "n_estimators=",
    ),
    Edit(
        "neighbors",
        ALL,
        ("Use 15 neighbors.", "Change n_neighbors to 15."),
        has_value("n_neighbors", 15),
        "n_neighbors=",
    ),
    Edit("alpha", ALL, ("Set alpha to 0.1.", "Regularize less, with alpha=0.1."), has_value("alpha", 0.1), "alpha="),
    Edit(
        "scale",
        NUMERIC,
        ("Scale the numeric columns before the model.", "Standardize the features inside the pipeline."),
        calls(*SCALERS),
    ),
    Edit(
        "cross_validation",
        ALL,
        (
            "Use 5-fold cross-validation to print the validation score.",
            "Replace the single hold-out split by the mean score of 5-fold cross-validation.",
        ),
        every(
            calls("cross_val_score", "cross_validate", "cross_val_predict", "KFold", "StratifiedKFold"),
            calls("print"),
        ),
    ),
    Edit(
        "medians",
        TABULAR,
        ("Fill missing values with the median of each column instead of 0.", "Impute gaps by medians, not by zeros."),
        _fills_with_medians,
        ".fillna(0)",
    ),
    Edit(
        "log_target",
        REGRESSION,
        (
            "Log-transform the target for training and transform the predictions back.",
            "Fit the model on log1p of the target; use expm1 on what it predicts.",
        ),
        _uses_log_target,
    ),
    Edit(
        "smaller_holdout",
        ALL,
        ("Hold out only 10% of the rows for validation.", "Use test_size=0.1 for the split."),
        has_value("test_size", 0.1, "train_test_split"),
    ),
    Edit(
        "seed",
        ALL,
        ("Change every random_state to 42.", "Use 42 as the random seed throughout."),
        has_value("random_state", 42),
        "random_state=",
    ),
    Edit(
        "stratify",
        (*CLASSIFICATION, *TEXT),
        ("Stratify the split by the target.", "Keep the class proportions equal in both parts of the split."),
        lambda tree: any(each.arg == "stratify" for _, call in _calls(tree) for each in call.keywords),
        "train_test_split(X, y",
    ),
    Edit(
        "bigrams",
        TEXT,
        ("Let the vectorizer use bigrams as well as single words.", "Add word pairs: ngram_range from 1 to 2."),
        has_value("ngram_range", (1, 2)),
        "Vectorizer(",
    ),
    Edit(
        "tfidf",
        TEXT,
        ("Weigh the words by TF-IDF instead of counting them.", "Use a TfidfVectorizer."),
        calls("TfidfVectorizer", "TfidfTransformer"),
    ),
    Edit(
        "vocabulary",
        TEXT,
        ("Keep the 5000 most frequent words.", "Raise max_features of the vectorizer to 5000."),
        has_value("max_features", 5000),
        "max_features=",
    ),
    Edit(
        "products",
        TABULAR,
        (
            "Add products of the columns as features, of degree 2, before the model.",
            "Put PolynomialFeatures(degree=2) into the pipeline.",
        ),
        calls("PolynomialFeatures"),
    ),
    Edit(
        "components",
        NUMERIC,
        ("Reduce the features to 3 principal components before the model.", "Insert a PCA with 3 components."),
        lambda tree: any(
            [*map(ast.unparse, call.args), *(ast.unparse(each.value) for each in call.keywords)][:1] == ["3"]
            for name, call in _calls(tree)
            if name == "PCA"
        ),
    ),
    Edit(
        "all_columns",
        TABULAR,
        (
            "Train on all numeric columns rather than on this list, without id and target.",
            "Stop picking columns by hand: take every numeric column except id and target.",
        ),
        _uses_all_columns,
        "train[[",
    ),
    Edit(
        "count_rows",
        ALL,
        ("Also print the number of training rows.", "Print how many rows train has before the model is fitted."),
        _prints_rows,
    ),
    Edit(
        "voting",
        ("tabular-classification",),
        (
            "Average the model with a logistic regression in a soft VotingClassifier.",
            "Combine the current model and LogisticRegression by soft voting.",
        ),
        every(calls("VotingClassifier"), calls("LogisticRegression")),
    ),
)


def draw_pairs(tasks: Sequence[Task], num_pairs: int, seed: int) -> list[Pair]:
    """Return pairs of scripts and edits, the same for the same arguments; the first pairs of a longer list are these.

    Pair i has the i-th task, in turn, under names of its own, and a script of i // len(tasks) modulo 3 recipes: the
    initial one, or one that one or two recipes changed. Its edit is one of those that were drawn least so far.
    """
    drawn: Counter[str] = Counter()
    pairs: list[Pair] = []
    for index in range(num_pairs):
        task = tasks[index % len(tasks)]
        rng = random.Random(f"{seed}/coder/{index}")
        instance = draw_instance(task, rng)
        recipes, source = _changed(instance, index // len(tasks) % (MAX_RECIPES + 1), rng)
        fitting = [edit for edit in EDITS if edit.fits(task.kind, source)]
        edit = min(rng.sample(fitting, len(fitting)), key=lambda each: drawn[each.name])
        drawn[edit.name] += 1
        instruction = rng.choice(edit.instructions)
        pairs.append(Pair(f"{index:03d}-{task.name}-{edit.name}", instance, recipes, source, edit, instruction))
    return pairs


def _changed(instance: Instance, num_recipes: int, rng: random.Random) -> tuple[tuple[str, ...], str]:
    """Return the names of `num_recipes` recipes that do not break a script, and the initial script after them."""
    source, applied = instance.script_source(), []
    safe = [each for each in recipes_for(instance.task.kind) if each.effect in ("good", "harmless") and not each.undoes]
    for recipe in rng.sample(safe, len(safe)):
        if len(applied) == num_recipes:
            break
        try:
            source = apply(source, [recipe.name])
        except Cannot:
            continue
        applied.append(recipe.name)
    return tuple(applied), source
