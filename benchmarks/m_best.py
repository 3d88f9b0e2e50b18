"""Measure `m_best` of every task: the best hidden score of a small search over good scikit-learn pipelines.

    python -m tasks prepare --out DIR && python -m benchmarks.m_best DIR [NAME ...]

All features, one-hot categories, tuned models of several families, and averages of the best two, three and five. The
winner is chosen by its hidden score, which an agent never sees, so it is a score to approach, not one to beat easily.
Prints the best six, and the two lines for each `task.yaml`. Takes about ten minutes on two cores.
"""

# scikit-learn has no types, and those that pyright infers are too narrow
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import argparse
import io
import os
import time
from collections.abc import Sequence
from itertools import product

# Before numpy reads them: the search uses two processes, not threads.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor, make_column_selector, make_column_transformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import TunedThresholdClassifierCV
from sklearn.naive_bayes import MultinomialNB
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.svm import SVC, SVR

from tasks.grading import score
from tasks.metric import METRICS
from tasks.quoting import user_path
from tasks.registry import load, names
from tasks.task import Task

Candidates = dict[str, BaseEstimator]


def columns(*, scaled: bool) -> BaseEstimator:
    """Return a transformer of a table: numbers with medians for missing values, categories one-hot."""
    numbers = make_pipeline(SimpleImputer(strategy="median"), *([StandardScaler()] if scaled else []))
    return make_column_transformer(
        (numbers, make_column_selector(dtype_include="number")),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), make_column_selector(dtype_exclude="number")),
    )


def regressors() -> Candidates:
    """Return candidates for regression on a table."""
    found: Candidates = {}
    for depth, rate in product((3, 4, 5), (0.03, 0.06)):
        model = GradientBoostingRegressor(
            n_estimators=600, learning_rate=rate, max_depth=depth, subsample=0.6, max_features=0.3, random_state=0
        )
        found[f"boosting depth {depth} rate {rate}"] = make_pipeline(columns(scaled=False), model)
    for leaf in (1, 3):
        model = ExtraTreesRegressor(300, min_samples_leaf=leaf, max_features=0.6, random_state=0)
        found[f"extra trees leaf {leaf}"] = make_pipeline(columns(scaled=False), model)
    for c in (3.0, 30.0):
        found[f"svr C {c:g}"] = make_pipeline(
            columns(scaled=True), StandardScaler(), SVR(C=c, epsilon=0.05, gamma=0.005)
        )
    found["ridge"] = make_pipeline(columns(scaled=True), Ridge(alpha=10.0))
    return found


def log_regressors() -> Candidates:
    """Return the same candidates on the logarithm of the target."""
    return {
        f"log {name}": TransformedTargetRegressor(model, func=np.log1p, inverse_func=np.expm1)
        for name, model in regressors().items()
    }


def denoisers() -> Candidates:
    """Return candidates that predict a pixel from its surroundings, on which it depends smoothly."""
    found = regressors()
    for c, gamma in product((0.3, 1.0, 3.0), (0.01, 0.03)):
        found[f"svr C {c:g} gamma {gamma:g}"] = make_pipeline(StandardScaler(), SVR(C=c, epsilon=0.03, gamma=gamma))
    for alpha, seed in product((0.1, 1.0, 10.0), (0, 1)):
        network = MLPRegressor(
            hidden_layer_sizes=(64, 32), alpha=alpha, max_iter=300, early_stopping=True, random_state=seed
        )
        found[f"network alpha {alpha:g} seed {seed}"] = make_pipeline(StandardScaler(), network)
    return found


def classifiers() -> Candidates:
    """Return candidates for classification of tables and images."""
    found: Candidates = {}
    for c in (0.03, 0.3, 3.0, 30.0):
        found[f"logistic C {c:g}"] = make_pipeline(columns(scaled=True), LogisticRegression(C=c, max_iter=2000))
    for leaf, share in product((1, 3, 8), ("sqrt", 0.4)):
        forest = RandomForestClassifier(400, min_samples_leaf=leaf, max_features=share, random_state=0)
        extra = ExtraTreesClassifier(400, min_samples_leaf=leaf, max_features=share, random_state=0)
        found[f"forest leaf {leaf} features {share}"] = make_pipeline(columns(scaled=False), forest)
        found[f"extra trees leaf {leaf} features {share}"] = make_pipeline(columns(scaled=False), extra)
    for c, gamma in product((1.0, 10.0), ("scale", 0.001)):
        machine = CalibratedClassifierCV(SVC(C=c, gamma=gamma), ensemble=False)
        found[f"svc C {c:g} gamma {gamma}"] = make_pipeline(columns(scaled=False), StandardScaler(), machine)
        found[f"unscaled svc C {c:g} gamma {gamma}"] = make_pipeline(columns(scaled=False), machine)
    return found


def boosted_classifiers() -> Candidates:
    """Return candidates that are too slow for many classes."""
    return {
        f"boosting depth {depth} rate {rate}": make_pipeline(
            columns(scaled=False),
            GradientBoostingClassifier(
                n_estimators=200, learning_rate=rate, max_depth=depth, subsample=0.6, max_features=0.3, random_state=0
            ),
        )
        for depth, rate in product((2, 3), (0.02, 0.05))
    }


def networks() -> Candidates:
    """Return candidates for classes of images: networks with one hidden layer."""
    found: Candidates = {}
    for units, alpha in product((100, 300), (0.1, 1.0)):
        model = MLPClassifier(hidden_layer_sizes=(units,), alpha=alpha, max_iter=100, random_state=0)
        found[f"network units {units} alpha {alpha:g}"] = make_pipeline(MinMaxScaler(), model)
    return found


def balanced_classifiers() -> Candidates:
    """Return candidates that weight the classes equally, for unequal classes under F1."""
    found: Candidates = {}
    for c in (0.03, 0.3, 3.0):
        model = LogisticRegression(C=c, max_iter=2000, class_weight="balanced")
        found[f"balanced logistic C {c:g}"] = make_pipeline(columns(scaled=True), model)
    for leaf in (3, 8, 20):
        model = RandomForestClassifier(400, min_samples_leaf=leaf, class_weight="balanced", random_state=0)
        found[f"balanced forest leaf {leaf}"] = make_pipeline(columns(scaled=False), model)
    return found


def thresholded(models: Candidates) -> Candidates:
    """Return the fast classifiers of two classes, with the threshold of the best cross-validated F1."""
    return {
        f"{name}, threshold": TunedThresholdClassifierCV(model, scoring="f1", cv=5)
        for name, model in models.items()
        if name.startswith(("logistic", "boosting"))
    }


def text_features() -> Candidates:
    """Return n-grams of words, of characters and both, weighted by TF-IDF."""
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, token_pattern=r"\S+|\w+")
    plain = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, strip_accents="unicode")
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2)
    cased = TfidfVectorizer(analyzer="char", ngram_range=(1, 4), sublinear_tf=True, min_df=2, lowercase=False)
    return {
        "words": words,
        "plain words": plain,
        "letters": letters,
        "cased letters": cased,
        "words and letters": make_union(plain, letters),
        "words and cased letters": make_union(plain, cased),
    }


def text_classifiers() -> Candidates:
    """Return candidates for classes of texts: linear models."""
    found: Candidates = {}
    for (name, feature), c in product(text_features().items(), (1.0, 5.0, 25.0)):
        found[f"{name}, logistic C {c:g}"] = make_pipeline(feature, LogisticRegression(C=c, max_iter=1000))
    for (name, feature), alpha in product(text_features().items(), (0.1, 0.5)):
        found[f"{name}, bayes alpha {alpha:g}"] = make_pipeline(feature, MultinomialNB(alpha=alpha))
    return found


def text_regressors() -> Candidates:
    """Return candidates for ratings of texts, which are rounded: linear and RBF models."""
    found: Candidates = {}
    for (name, feature), alpha in product(text_features().items(), (0.2, 1.0, 5.0)):
        found[f"{name}, ridge alpha {alpha:g}"] = make_pipeline(feature, Ridge(alpha=alpha))
    for (name, feature), c in product(text_features().items(), (1.0, 10.0)):
        found[f"{name}, svr C {c:g}"] = make_pipeline(feature, SVR(C=c))
    return found


def candidates(task: Task, num_classes: int) -> Candidates:
    """Return the pipelines to try on `task`."""
    if task.kind == "tabular-regression":
        return regressors() | log_regressors()
    if task.kind == "image-denoising":
        return denoisers()
    if task.kind == "text-ordinal":
        return text_regressors()
    if task.kind == "text-classification":
        return text_classifiers()
    found = classifiers() | (boosted_classifiers() if num_classes == 2 else {})
    if task.kind == "image-classification":
        found |= networks()
    if task.metric == "f1":
        found |= balanced_classifiers() | (thresholded(found) if num_classes == 2 else {})
    return found


def submission(task: Task, model: BaseEstimator, test: pd.DataFrame, features: pd.DataFrame | pd.Series) -> bytes:
    """Return the submission file of a fitted model."""
    if task.metric == "log_loss":
        table = pd.DataFrame(model.predict_proba(features), columns=model.classes_)
        table.insert(0, "id", test["id"])
    else:
        values = model.predict_proba(features)[:, 1] if task.metric == "auc" else model.predict(features)
        if task.metric == "rmsle":
            values = values.clip(0)
        if task.metric == "qwk":
            values = values.round().astype(int)
        table = pd.DataFrame({"id": test["id"], "target": values})
    buffer = io.StringIO()
    table.to_csv(buffer, index=False)
    return buffer.getvalue().encode()


def hidden_score(task: Task, model: BaseEstimator) -> float:
    """Return the hidden score of `model` fitted to all training data."""
    train, test = (pd.read_csv(task.public / name) for name in ("train.csv", "test.csv"))
    x, x_test = train.drop(columns=["id", "target"]), test.drop(columns="id")
    if task.kind.startswith("text"):
        x, x_test = x["text"], x_test["text"]
    model.fit(x, train["target"])
    return score(submission(task, model, test, x_test), task.private / "answers.csv", task.metric)


def average(task: Task, models: Candidates) -> BaseEstimator:
    """Return an average of `models`."""
    if task.kind in ("tabular-regression", "image-denoising", "text-ordinal"):
        return VotingRegressor(list(models.items()))
    return VotingClassifier(list(models.items()), voting="soft")


def search(task: Task) -> None:
    """Print the scores of the best pipelines of one task and the lines for its `task.yaml`."""
    start = time.monotonic()
    models = candidates(task, pd.read_csv(task.public / "train.csv")["target"].nunique())
    scores = Parallel(n_jobs=2)(delayed(hidden_score)(task, model) for model in models.values())
    ranked = sorted(zip(scores, models, strict=True), reverse=METRICS[task.metric].direction == "maximize")
    for num in (2, 3, 5):
        chosen = {name: models[name] for _, name in ranked[:num]}
        ranked.append((hidden_score(task, average(task, chosen)), "average of " + "; ".join(chosen)))
    ranked.sort(reverse=METRICS[task.metric].direction == "maximize")
    print(f"\n{task.name}: {len(ranked)} pipelines, {time.monotonic() - start:.0f} s")
    for value, name in ranked[:6]:
        print(f"  {value:9.4f}  gain {task.gain(value):6.3f}  {name}")
    print(f"m_best: {ranked[0][0]:.4f}\nm_best_source: {ranked[0][1]}", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the search from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=user_path, help="folder of prepared tasks")
    parser.add_argument("names", nargs="*", help="tasks; default: all")
    options = parser.parse_args(argv)
    for name in options.names or names():
        search(load(name, options.data))


if __name__ == "__main__":
    main()
