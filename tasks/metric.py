"""Metrics: pure functions of hidden answers and predictions, with their directions.

Each metric equals scikit-learn's of the same name unless its docstring says otherwise. A metric raises ValueError, for
the task's author, if the answers make it meaningless (a single class, all values equal), and `Undefined`, with a
message that the agent may read, if the predictions do.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

LARGEST_RATING = 2**53  # beyond it, different whole numbers are equal floating-point numbers


class Undefined(ValueError):
    """Raised if the metric is undefined for these predictions; the message is the reason."""


def accuracy(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the share of correct labels; both arguments are `[B]`."""
    return float(np.mean(truth == prediction))


def f1(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the F1 score, 2 TP / (2 TP + FP + FN).

    If the true labels are 0 and 1, it is that of class 1, and 0 if class 1 is neither true nor predicted anywhere.
    Otherwise it is the macro mean over all labels that occur in either argument.

    Args:
        truth: The true labels, `[B]`.
        prediction: The predicted labels, `[B]`.
    """
    labels, index = np.unique(np.concatenate([truth, prediction]), return_inverse=True)
    true, predicted = np.split(index, 2)
    hits = np.bincount(true[true == predicted], minlength=len(labels))
    scores = 2 * hits / np.bincount(index)  # a label occurs 2 TP + FP + FN times in both together
    if set(truth.tolist()) <= {0, 1}:
        scores = scores[labels == 1]
    return float(scores.mean()) if len(scores) else 0.0


def qwk(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return Cohen's kappa with quadratic weights: 1 for full agreement, 0 for agreement by chance.

    1 - E (t - p)^2 / E' (t - p)^2, where E is the mean over rows and E' the mean over all pairs of a truth and a
    prediction, var t + var p + (mean t - mean p)^2. This equals the usual sum over a confusion table. The distance of
    two ratings is the difference of their values, as Kaggle defines it. scikit-learn uses the difference of their ranks
    among the ratings that occur, which differs only if a rating in between does not occur.

    Args:
        truth: The true ratings, `[B]`, whole numbers.
        prediction: The predicted ratings, `[B]`, whole numbers.
    """
    if np.ptp(truth) == 0:
        raise ValueError("qwk is undefined: all answers are the same")
    if (truth != np.round(truth)).any() or (np.abs(truth) > LARGEST_RATING).any():
        raise ValueError("qwk is undefined: an answer is not a whole number, or is beyond 2^53")
    if (prediction != np.round(prediction)).any():
        raise Undefined("a prediction is not a whole number")
    chance = truth.var() + prediction.var() + (truth.mean() - prediction.mean()) ** 2
    return float(1 - np.mean((truth - prediction) ** 2) / chance)


def auc(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the area under the ROC curve: the probability that a 1 ranks above a 0, with ties counting half.

    The Mann-Whitney form, (sum of the ranks of the ones - n1 (n1 + 1) / 2) / (n1 n0), with mean ranks for ties. The
    areas of several columns are averaged.

    Args:
        truth: The true labels, 0 or 1, `[B]` or `[B, C]`.
        prediction: Any scores, of the same shape.
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
    """Return the mean of -ln p(true class), with p clipped to [eps, 1 - eps] for the float64 eps of 2.2e-16.

    Kaggle's descriptions clip at 1e-15: a certain error costs 36.0 here and 34.5 there.

    Args:
        truth: The index of the true class, `[B]`.
        prediction: A distribution for each row, `[B, C]`.
    """
    eps = np.finfo(np.float64).eps
    chosen = prediction[np.arange(len(truth)), truth]
    return float(-np.mean(np.log(np.clip(chosen, eps, 1 - eps))))


def map_at_5(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the mean average precision at 5 with one true label per row: the mean of 1 / rank of the true label.

    A row counts 0 if the true label is not among its five. A repeated wrong label still takes up a rank. This is
    Kaggle's MAP@5; scikit-learn has none.

    Args:
        truth: The true labels, `[B]`.
        prediction: Labels by decreasing likelihood, `[B, 5]`, padded with empty text.
    """
    hits = prediction == truth[:, None]
    return float(np.mean(np.where(hits.any(axis=1), 1 / (1 + hits.argmax(axis=1)), 0.0)))


def mae(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the mean absolute error of numbers `[B]` or `[B, C]`, in the target's unit."""
    return float(np.mean(np.abs(truth - prediction)))


def rmse(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the root mean squared error of numbers `[B]` or `[B, C]`, in the target's unit.

    For several columns, it is the mean of the columns' errors, also known as MCRMSE.
    """
    return float(np.sqrt(np.mean(np.square(_columns(truth) - _columns(prediction)), axis=0)).mean())


def rmsle(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the `rmse` of ln (1 + x) for numbers x above -1, `[B]` or `[B, C]`."""
    if (truth <= -1).any():
        raise ValueError("rmsle is undefined: an answer is -1 or less")
    if (prediction <= -1).any():
        raise Undefined("a prediction is -1 or less, and rmsle takes the logarithm of 1 + x")
    return rmse(np.log1p(truth), np.log1p(prediction))


def pearson(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the correlation cov(t, p) / sqrt(var t var p) of numbers `[B]` or `[B, C]`, averaged over columns.

    Constant predictions raise `Undefined`; scipy returns NaN for them.
    """
    truth, prediction = _columns(truth), _columns(prediction)
    if (np.ptp(truth, axis=0) == 0).any():
        raise ValueError("pearson is undefined: all answers of a column are the same")
    if (np.ptp(prediction, axis=0) == 0).any():
        raise Undefined("all predictions are the same, which correlates with nothing")
    t, p = truth - truth.mean(axis=0), prediction - prediction.mean(axis=0)
    t, p = t / np.abs(t).max(axis=0), p / np.abs(p).max(axis=0)  # prevents overflow and underflow of the squares
    correlations = (t * p).sum(axis=0) / (np.linalg.norm(t, axis=0) * np.linalg.norm(p, axis=0))
    return float(np.clip(correlations, -1, 1).mean())


def better_direction(direction: str) -> str:
    """Return `higher` or `lower`: which scores are better in a direction, in words."""
    return "higher" if direction == "maximize" else "lower"


def _columns(numbers: np.ndarray) -> np.ndarray:
    """Return `[B]` or `[B, C]` as `[B, C]`."""
    return numbers.reshape(len(numbers), -1)


@dataclass(frozen=True)
class Metric:
    """A metric of the library.

    Attributes:
        function: A function `(truth, prediction) -> score`.
        direction: Whether a higher or a lower score is better.
        form: The content of a submission besides its ids. `label`: a column of labels. `number`: one or more columns
            of numbers. `distribution`: a column for each class, or one column with the probability of class 1.
            `ranking`: a column of at most five labels, separated by spaces, the likeliest first.
        rates: Whether labels are ratings, whole numbers whose distances count; other labels are only equal or not.
    """

    function: Callable[[np.ndarray, np.ndarray], float]
    direction: Literal["maximize", "minimize"]
    form: Literal["label", "number", "distribution", "ranking"]
    rates: bool = False


OPTIMUM = {"maximize": 1.0, "minimize": 0.0}  # the best value of every metric here, by direction
METRICS: Mapping[str, Metric] = {
    "accuracy": Metric(accuracy, "maximize", "label"),
    "auc": Metric(auc, "maximize", "number"),
    "f1": Metric(f1, "maximize", "label"),
    "log_loss": Metric(log_loss, "minimize", "distribution"),
    "mae": Metric(mae, "minimize", "number"),
    "map_at_5": Metric(map_at_5, "maximize", "ranking"),
    "mcrmse": Metric(rmse, "minimize", "number"),
    "pearson": Metric(pearson, "maximize", "number"),
    "qwk": Metric(qwk, "maximize", "label", rates=True),
    "rmse": Metric(rmse, "minimize", "number"),
    "rmsle": Metric(rmsle, "minimize", "number"),
}
