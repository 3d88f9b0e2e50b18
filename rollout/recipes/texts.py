"""Recipes on the Data axis for texts: what is counted, and how."""

import libcst as cst

from rollout.recipes.recipe import TEXT, Recipe
from rollout.recipes.script import Cannot, Script, keyword, with_keyword


def _vectorizer(script: Script) -> cst.Call:
    if not script.is_text:
        raise Cannot("the script has no texts")
    return script.steps[0]


def _set_vectorizer(script: Script, new: cst.Call) -> None:
    if script.code(new) == script.code(script.steps[0]):
        raise Cannot("the words are already counted so")
    script.set_steps([new, *script.steps[1:]])


def _tfidf(script: Script) -> None:
    old = _vectorizer(script)
    script.require("sklearn.feature_extraction.text", "TfidfVectorizer")
    _set_vectorizer(script, old.with_changes(func=cst.Name("TfidfVectorizer")))


def _bigrams(script: Script) -> None:
    _set_vectorizer(script, with_keyword(_vectorizer(script), "ngram_range", (1, 2)))


def _larger_vocabulary(script: Script) -> None:
    old = keyword(_vectorizer(script), "max_features")
    if not isinstance(old, int) or old >= 5000:
        raise Cannot("the vocabulary is already large")
    _set_vectorizer(script, with_keyword(script.steps[0], "max_features", min(old * 10, 5000)))


def _smaller_vocabulary(script: Script) -> None:
    _set_vectorizer(script, with_keyword(_vectorizer(script), "max_features", 30))


def _characters(script: Script) -> None:
    call = with_keyword(_vectorizer(script), "analyzer", "char_wb")
    _set_vectorizer(script, with_keyword(call, "ngram_range", (3, 3)))


def _stop_words(script: Script) -> None:
    _set_vectorizer(script, with_keyword(_vectorizer(script), "stop_words", "english"))


RECIPES = (
    Recipe(
        "tfidf",
        "Data",
        "good",
        TEXT,
        (
            "Use TF-IDF.",
            "Use TfidfVectorizer.",
            "Weight the words by TF-IDF.",
            "Change the counts to TF-IDF.",
        ),
        (r"(words by |counts (to|by) )?tf-?idf\w*", r"inverse document frequency"),
        _tfidf,
    ),
    Recipe(
        "bigrams",
        "Data",
        "good",
        TEXT,
        (
            "Add bigrams.",
            "Use words and bigrams.",
            "Add pairs of words.",
            "Count bigrams too.",
        ),
        (r"(words and )?bi-?grams?", r"pairs of (neighbou?ring )?words", r"word pairs"),
        _bigrams,
    ),
    Recipe(
        "larger_vocabulary",
        "Data",
        "good",
        TEXT,
        (
            "Use a larger vocabulary.",
            "Use more words.",
            "Keep more words in the vocabulary.",
            "Make the vocabulary larger.",
        ),
        (r"(larger|bigger|richer|wider) vocabulary", r"vocabulary (larger|bigger)", r"more words"),
        _larger_vocabulary,
    ),
    Recipe(
        "smaller_vocabulary",
        "Data",
        "harmful",
        TEXT,
        (
            "Use a smaller vocabulary.",
            "Use fewer words.",
            "Keep fewer words in the vocabulary.",
            "Make the vocabulary smaller.",
        ),
        (r"(smaller|tiny|short) vocabulary", r"vocabulary (smaller|tiny)", r"fewer words", r"most frequent words"),
        _smaller_vocabulary,
    ),
    Recipe(
        "characters",
        "Data",
        "good",
        TEXT,
        (
            "Use character n-grams.",
            "Count characters, not words.",
            "Use parts of words.",
            "Count character n-grams.",
        ),
        (r"characters?(, not words)?( n-?grams?)?", r"parts of words", r"subwords?"),
        _characters,
    ),
    Recipe(
        "stop_words",
        "Data",
        "harmless",
        TEXT,
        (
            "Remove stop words.",
            "Drop the stop words.",
            "Use a list of stop words.",
            "Leave out stop words.",
        ),
        (r"stop ?-?words?", r"(very )?common words"),
        _stop_words,
    ),
)
