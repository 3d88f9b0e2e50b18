"""The library of ideas that steer exploration, on the axes Data, Model and Learning.

An idea is a sentence for the expert's prompt. The ideas of the library are worded such that the scripted coder
understands them. Ideas proposed by a language model are used in the same way.
"""

from collections.abc import Mapping
from dataclasses import dataclass

AXES = ("Data", "Model", "Learning")

_TABULAR = ("tabular-classification", "tabular-regression")
_NUMERIC = (*_TABULAR, "image-classification", "image-denoising")
_TEXT = ("text-classification", "text-regression", "text-ordinal")
_REGRESSION = ("tabular-regression", "text-regression")
_CLASSIFICATION = ("tabular-classification", "image-classification", "text-classification")
_DENSE_CLASSES = ("tabular-classification", "image-classification")
_CLASSES = ("tabular-classification",)
_IMAGES = ("image-classification", "image-denoising")
_PHOTOGRAPHS = ("image-classification",)
_NUMBERS = ("tabular-regression", "text-regression", "image-denoising", "text-ordinal")
_ALL = (*_NUMERIC, *_TEXT)


@dataclass(frozen=True)
class Idea:
    """A candidate idea: its axis, its sentence, and the kinds of task it is for."""

    axis: str
    text: str
    kinds: tuple[str, ...]


# axis -> kinds -> sentences
_TEXTS: Mapping[str, Mapping[tuple[str, ...], tuple[str, ...]]] = {
    "Data": {
        _NUMERIC: (
            "Standardize the features so that no column dominates the others.",
            "The columns have different units, so bring them to zero mean and unit variance.",
            "Put a StandardScaler in front of the model.",
            "Distances count here, so scale the features to unit variance.",
            "Rescale every feature to the range from zero to one.",
            "Try MinMaxScaler before the model.",
            "Expand each feature into splines to catch curved effects.",
            "A spline basis lets a simple model bend.",
            "Add squares and products of the features.",
            "Create polynomial features of degree two.",
            "Pairs of columns may act together, so add interactions.",
        ),
        _TABULAR: (
            "Map each column to a normal distribution.",
            "Replace each value by its quantile.",
            "Use the categorical columns too, they are ignored so far.",
            "One-hot encode the columns with words.",
            "Turn the categorical columns into dummies and keep all columns.",
            "Fill missing values with the median instead of zero.",
            "Impute the gaps in the data before fitting.",
            "Zeros stand for missing values now, a median imputer is better.",
            "Use target encoding, so that words become numbers that matter.",
            "Encode the categorical columns by the mean target.",
            "Add flags for missing values, a gap may mean something.",
            "Let the model see which values are missing.",
            "Some columns have long tails, so transform the skewed columns.",
            "Try a power transform to make the columns less skewed.",
        ),
        _REGRESSION: (
            "The target is skewed, so fit the logarithm of the target.",
            "Predict the log of the target and transform back.",
            "Put the target on a log scale.",
        ),
        _TEXT: (
            "Replace raw counts by TF-IDF.",
            "Rare words tell more, so weight them by inverse document frequency.",
            "Count bigrams besides single words.",
            "Phrases matter, so add pairs of neighboring words.",
            "The vocabulary is too small, keep more words.",
            "Let the vectorizer have a larger vocabulary.",
            "Use character n-grams, which see spelling and endings.",
            "Cut the texts into subwords.",
            "Remove stop words such as the and of.",
            "Leave out very common words.",
            "A smaller vocabulary may be less noisy.",
            "Keep more words and count bigrams.",
            "Long texts repeat words, so take the logarithm of the counts.",
            "Use sublinear TF-IDF, ten times is not ten times as much.",
            "Drop rare words, they are mostly noise.",
            "Leave out the words of few texts.",
            "Count words and letters together.",
            "Letters see misspelt words, so add the letters to the words.",
            "Reduce the words to topics.",
            "Use latent semantic analysis before the model.",
            "Texts differ in length, so scale each row to unit length.",
            "Use Normalizer on the counts.",
        ),
        _ALL: (
            "Keep only the strongest features.",
            "Do feature selection before the model.",
            "Throw out noisy features.",
            "Reduce the dimension by PCA.",
        ),
        _IMAGES: (
            "Images differ in contrast, so scale each row to unit length.",
            "Use Normalizer on the pixels.",
            "Lines matter more than shades, so add differences of pixels.",
            "Add the edges of the images to the pixels.",
        ),
        _PHOTOGRAPHS: (
            "Train on shifted copies of the images too.",
            "Use data augmentation by one pixel.",
        ),
    },
    "Model": {
        _ALL: (
            "A random forest handles mixed features as they are.",
            "Replace the model by a random forest.",
            "Try a forest of extremely randomized trees.",
            "Extra trees are quick and vary more than a forest.",
            "Boosted trees often win on such data.",
            "Fit gradient boosting.",
            "Let the nearest neighbors vote.",
            "A kNN model needs no training at all.",
            "Use a support vector machine with an rbf kernel.",
            "An SVM can bend its boundary.",
            "Go back to a plain linear model.",
            "Logistic regression or ridge regression is a solid baseline.",
            "Bag the model over bootstrap samples.",
            "Bagging makes an unstable model calmer.",
            "Blend the present model with a forest.",
            "Average two models of different families.",
            "Let two models vote by voting on the answer.",
            "Use gradient boosting with more trees.",
            "Use a linear support vector machine.",
            "A linear SVM with a wide margin is quick and strong.",
            "Stack the model with a forest.",
            "Let stacking learn whom to trust.",
            "Use a random forest with more trees.",
        ),
        _CLASSIFICATION: (
            "Naive Bayes is hard to beat on small data.",
            "Model each class by naive Bayes.",
            "Try a Bayes classifier.",
        ),
        _DENSE_CLASSES: (
            "Linear discriminant analysis with shrinkage suits few rows.",
            "Standardize first, then use discriminant analysis.",
        ),
        _NUMERIC: (
            "Standardize first, then use nearest neighbors.",
            "Standardize first, then use a support vector machine.",
            "Standardize and train a neural network.",
            "Train a neural network with one hidden layer.",
            "A multi-layer perceptron can learn the interplay by itself.",
            "Histogram boosting is fast and strong.",
            "Use HistGradientBoosting on binned columns.",
        ),
        _TEXT: (
            "Use TF-IDF and a linear model.",
            "Use TF-IDF and a support vector machine.",
            "Use TF-IDF and a linear support vector machine.",
            "Weight words by TF-IDF for nearest neighbors.",
        ),
    },
    "Learning": {
        _ALL: (
            "The fit stops early, so train for more iterations.",
            "Use gradient boosting with more iterations.",
            "Use a linear model and raise max_iter so that the solver converges.",
            "The model underfits, so use weaker regularization.",
            "Regularize less.",
            "Lower the penalty, it may be far too strong: less penalty.",
            "Guard against overfitting with stronger regularization.",
            "Regularize more.",
            "Tune the regularization by cross-validation.",
            "Pick the main parameter with a small search.",
            "Choose the settings by cross-validated scores.",
            "Use a random forest with more trees, for less variance.",
            "Use extra trees and raise n_estimators.",
            "Gradient boosting with deeper trees may catch more.",
            "Use gradient boosting on shallow trees.",
            "Gradient boosting with a lower learning rate is safer.",
            "Use boosting with a large learning rate to learn faster.",
            "Try another seed in case this one is unlucky.",
            "Luck plays a part, so use another seed.",
            "Use gradient boosting and make the trees deeper.",
            "Validate on fewer rows and see whether the score holds.",
            "Use a smaller validation set.",
            "The parameters look odd, so use the default parameters.",
            "Reset the parameters of the model.",
            "Use a random forest with part of the features at each split.",
            "Use extra trees and part of the features at each split.",
            "Validate on five folds, one split is luck.",
            "A validation on five folds is less noisy.",
            "Use a random forest and average three seeds.",
            "Use extra trees and the average of three seeds.",
        ),
        _CLASSIFICATION: (
            "Some classes are rare, so use balanced class weights.",
            "Balance the classes in the loss.",
            "Calibrate the probabilities.",
            "Use a random forest with calibrated probabilities.",
        ),
        _TEXT: (
            "Keep more words and use stronger regularization.",
            "Use TF-IDF and weaker regularization.",
        ),
        _NUMBERS: (
            "Outliers pull the fit, so use a linear model with the Huber loss.",
            "Use gradient boosting with a robust loss.",
        ),
        _CLASSES: (
            "Tune the threshold, half may be the wrong one.",
            "Where classes are rare, use the best threshold.",
        ),
        _NUMERIC: (
            "Use a neural network and a lower learning rate.",
            "Standardize the features and use weaker regularization.",
            "Use a neural network and train it for more iterations.",
            "Use a neural network with a larger hidden layer.",
            "Try a neural network with a wider hidden layer.",
            "Use splines and tune the model by cross-validation.",
        ),
    },
}

LIBRARY: tuple[Idea, ...] = tuple(
    Idea(axis, text, kinds) for axis in AXES for kinds, texts in _TEXTS[axis].items() for text in texts
)


def candidates_for(kind: str) -> list[Idea]:
    """Return the ideas of the library for a kind of task, in a fixed order."""
    return [idea for idea in LIBRARY if kind in idea.kinds]
