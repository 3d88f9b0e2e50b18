"""Metrics: pure functions of hidden answers and predictions, and which of them want to be large.

Every one equals scikit-learn's of the same name unless its docstring says otherwise. Where the answers make a metric
meaningless (one class only, all values the same) a ValueError says so, for whoever wrote the task; where the
predictions do, it is `Undefined`, in words that the agent may read.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np


class Undefined(ValueError):
    """Why these predictions have no value of the metric."""


def accuracy(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the share of equal labels; both are `[B]`."""
    return float(np.mean(truth == prediction))


def f1(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the F1 score, 2 TP / (2 TP + FP + FN): of class 1 where the true labels are 0 and 1, else the macro mean.

    Where class 1 is neither there nor predicted it is 0. The macro mean is over all labels that occur in either.

    Args:
        truth: `[B]`, labels.
        prediction: `[B]`, labels.
    """
    labels, index = np.unique(np.concatenate([truth, prediction]), return_inverse=True)
    true, predicted = np.split(index, 2)
    hits = np.bincount(true[true == predicted], minlength=len(labels))
    scores = 2 * hits / np.bincount(index)  # a label occurs 2 TP + FP + FN times in the two together
    if set(truth.tolist()) <= {0, 1}:
        scores = scores[labels == 1]
    return float(scores.mean()) if len(scores) else 0.0


def qwk(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return Cohen's kappa with quadratic weights: 1 for agreement, 0 for what chance would give.

    1 - E (t - p)^2 / E' (t - p)^2, where E is over the rows and E' over all pairs of a truth with a prediction, which
    is var t + var p + (mean t - mean p)^2: the usual sum over a table of (i - j)^2 without the table. The distance of
    two ratings is that of their values, as Kaggle defines it; scikit-learn counts how many ratings that occur lie
    between them, which is the same unless a rating in the middle occurs nowhere.

    Args:
        truth: `[B]`, whole numbers.
        prediction: `[B]`, whole numbers.
    """
    if np.ptp(truth) == 0:
        raise ValueError("qwk is undefined: all answers are the same")
    if (prediction != np.round(prediction)).any():
        raise Undefined("a prediction is not a whole number")
    chance = truth.var() + prediction.var() + (truth.mean() - prediction.mean()) ** 2
    return float(1 - np.mean((truth - prediction) ** 2) / chance)


def auc(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the area under the ROC curve: the chance that a 1 is ranked above a 0, ties counting half.

    The Mann-Whitney form, (sum of the ranks of the ones - n1 (n1 + 1) / 2) / (n1 n0), with mean ranks for ties.

    Args:
        truth: `[B]` or `[B, C]`, of 0 and 1.
        prediction: like `truth`, any scores; the areas of several columns are averaged.
    """
    areas = []
    for labels, scores in zip(_columns(truth).T, _columns(prediction).T, strict=True):
        positive = labels == 1
        num_ones, num_zeros = int(positive.sum()), int((labels == 0).sum())
        if num_ones == 0 or num_zeros == 0 or num_ones + num_zeros < len(labels):
            raise ValueError("auc is undefined: the answers of a column are not both 0 and 1")
        _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
        mean_rank = np.cumsum(sizes) - (sizes - 1) / 2
        ranks = mean_rank[group][positive].sum()
        areas.append((ranks - num_ones * (num_ones + 1) / 2) / (num_ones * num_zeros))
    return float(np.mean(areas))


def log_loss(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the mean of -ln p(true class), p kept one step of a float64 (2.2e-16) away from 0 and 1.

    Kaggle's descriptions keep p 1e-15 away; a certain error costs 36.0 here and 34.5 there.

    Args:
        truth: `[B]`, index of the true class.
        prediction: `[B, C]`, a distribution in each row.
    """
    eps = np.finfo(np.float64).eps
    chosen = prediction[np.arange(len(truth)), truth]
    return float(-np.mean(np.log(np.clip(chosen, eps, 1 - eps))))


def map_at_5(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the mean average precision at 5 with one true label a row: the mean of 1 / rank of the true label.

    Rows where it is not among the five count 0; a label named again stays a miss (Kaggle's MAP@5; scikit-learn has
    none).

    Args:
        truth: `[B]`, labels.
        prediction: `[B, 5]`, labels, the likeliest first; rows of fewer are filled up with the empty text.
    """
    hits = prediction == truth[:, None]
    return float(np.mean(np.where(hits.any(axis=1), 1 / (1 + hits.argmax(axis=1)), 0.0)))


def mae(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the mean absolute error of `[B]` or `[B, C]` numbers, in the target's unit."""
    return float(np.mean(np.abs(truth - prediction)))


def rmse(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the root of the mean squared error of `[B]` or `[B, C]` numbers, in the target's unit.

    Of several columns it is the mean of their roots, which is also known as MCRMSE.
    """
    return float(np.sqrt(np.mean(np.square(_columns(truth) - _columns(prediction)), axis=0)).mean())


def rmsle(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the `rmse` of ln (1 + x) of `[B]` or `[B, C]` numbers above -1."""
    if (truth <= -1).any():
        raise ValueError("rmsle is undefined: an answer is -1 or less")
    if (prediction <= -1).any():
        raise Undefined("a prediction is -1 or less, and rmsle takes the logarithm of 1 + x")
    return rmse(np.log1p(truth), np.log1p(prediction))


def pearson(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the correlation cov(t, p) / sqrt(var t var p) of `[B]` or `[B, C]` numbers, averaged over columns.

    Equal predictions have none: scipy returns NaN for them.
    """
    truth, prediction = _columns(truth), _columns(prediction)
    if (np.ptp(truth, axis=0) == 0).any():
        raise ValueError("pearson is undefined: all answers of a column are the same")
    if (np.ptp(prediction, axis=0) == 0).any():
        raise Undefined("all predictions are the same, which correlates with nothing")
    t, p = truth - truth.mean(axis=0), prediction - prediction.mean(axis=0)
    t, p = t / np.abs(t).max(axis=0), p / np.abs(p).max(axis=0)  # so that no square is too large or too small
    correlations = (t * p).sum(axis=0) / (np.linalg.norm(t, axis=0) * np.linalg.norm(p, axis=0))
    return float(np.clip(correlations, -1, 1).mean())


def _columns(numbers: np.ndarray) -> np.ndarray:
    """Return `[B]` or `[B, C]` as `[B, C]`."""
    return numbers.reshape(len(numbers), -1)


@dataclass(frozen=True)
class Metric:
    """How a submission is scored.

    Attributes:
        function: `(truth, prediction) -> score`.
        direction: whether a higher or a lower score is better.
        form: what a submission holds beside its ids. `label`: a column of labels. `number`: one or several columns of
            numbers. `distribution`: a column for each class, or a single one with the probability of class 1.
            `ranking`: a column of at most five labels with spaces between, the likeliest first.
    """

    function: Callable[[np.ndarray, np.ndarray], float]
    direction: Literal["maximize", "minimize"]
    form: Literal["label", "number", "distribution", "ranking"]


OPTIMUM = {"maximize": 1.0, "minimize": 0.0}  # of every metric here, by its direction
METRICS: Mapping[str, Metric] = {
    "accuracy": Metric(accuracy, "maximize", "label"),
    "auc": Metric(auc, "maximize", "number"),
    "f1": Metric(f1, "maximize", "label"),
    "log_loss": Metric(log_loss, "minimize", "distribution"),
    "mae": Metric(mae, "minimize", "number"),
    "map_at_5": Metric(map_at_5, "maximize", "ranking"),
    "mcrmse": Metric(rmse, "minimize", "number"),
    "pearson": Metric(pearson, "maximize", "number"),
    "qwk": Metric(qwk, "maximize", "label"),
    "rmse": Metric(rmse, "minimize", "number"),
    "rmsle": Metric(rmsle, "minimize", "number"),
}
