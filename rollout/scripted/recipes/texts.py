"""Recipes on the Data axis for texts that change the vectorizer."""

import libcst as cst

from rollout.scripted.recipes.nodes import Cannot, argument, call_name, code_of, keyword, parse_call, with_keyword
from rollout.scripted.recipes.recipe import TAKE_AWAY, TEXT, Recipe
from rollout.scripted.recipes.script import UNIONS, Script
from rollout.scripted.recipes.values import number

MODULE = "sklearn.feature_extraction.text"
LARGE, SMALL = 5000, 30  # words of a vocabulary
LETTERS = 'TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), max_features=2000)'


def _set_vectorizer(script: Script, new: cst.Call) -> None:
    if code_of(new) == code_of(script.vectorizer):
        raise Cannot("the words are already counted so")
    script.set_vectorizer(new)


def _as_tfidf(script: Script) -> cst.Call:
    old = script.vectorizer
    if call_name(old) not in ("CountVectorizer", "TfidfVectorizer"):
        raise Cannot(f"{call_name(old)} does not become TF-IDF")
    return old.with_changes(func=cst.Name("TfidfVectorizer"))


def _tfidf(script: Script) -> None:
    _set_vectorizer(script, _as_tfidf(script))
    script.require(MODULE, "TfidfVectorizer")


def _sublinear(script: Script) -> None:
    _set_vectorizer(script, with_keyword(_as_tfidf(script), "sublinear_tf", True))
    script.require(MODULE, "TfidfVectorizer")


def _words(script: Script) -> cst.Call:
    """Return the vectorizer; raises Cannot if it counts characters."""
    call = script.vectorizer
    if argument(call, "analyzer") is not None and keyword(call, "analyzer") != "word":
        raise Cannot("the script does not count words")
    return call


def _listed(call: cst.Call) -> cst.Call:
    """Return the vectorizer; raises Cannot if it has no vocabulary."""
    if call_name(call) == "HashingVectorizer":
        raise Cannot("HashingVectorizer has no vocabulary")
    return call


def _bigrams(script: Script) -> None:
    call = _words(script)
    if argument(call, "ngram_range") is not None and keyword(call, "ngram_range") != (1, 1):
        raise Cannot("the script already counts more than single words")
    _set_vectorizer(script, with_keyword(call, "ngram_range", (1, 2)))


def _larger_vocabulary(script: Script) -> None:
    call = _listed(script.vectorizer)
    old = number(call, "max_features", LARGE, none=LARGE)
    if old >= LARGE:
        raise Cannot("the vocabulary is already large")
    _set_vectorizer(script, with_keyword(call, "max_features", min(int(old) * 10, LARGE)))


def _smaller_vocabulary(script: Script) -> None:
    call = _listed(script.vectorizer)
    if number(call, "max_features", LARGE, none=LARGE) <= SMALL:
        raise Cannot("the vocabulary is already small")
    _set_vectorizer(script, with_keyword(call, "max_features", SMALL))


def _characters(script: Script) -> None:
    call = with_keyword(script.vectorizer, "analyzer", "char_wb")
    _set_vectorizer(script, with_keyword(call, "ngram_range", (3, 3)))


def _stop_words(script: Script) -> None:
    _set_vectorizer(script, with_keyword(_words(script), "stop_words", "english"))


def _rare_words(script: Script) -> None:
    call = _listed(_words(script))
    old = number(call, "min_df", 1)
    if isinstance(old, float) or old >= 3:  # a float is a share of texts
        raise Cannot("rare words are already dropped")
    _set_vectorizer(script, with_keyword(call, "min_df", 3))


def _words_and_letters(script: Script) -> None:
    words = _words(script)
    if call_name(script.steps[0]) in UNIONS:
        raise Cannot("words and letters are already counted")
    script.require("sklearn.pipeline", "make_union")
    script.require(MODULE, "TfidfVectorizer")
    script.set_vectorizer(parse_call(f"make_union({code_of(words)}, {LETTERS})"))


def _topics(script: Script) -> None:
    if not script.is_text:
        raise Cannot("the script has no texts")
    if call_name(script.core) == "MultinomialNB":
        raise Cannot("naive Bayes takes counts, not topics")
    script.add_step("sklearn.decomposition", "TruncatedSVD(n_components=30, random_state=0)", 1)


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
        (rf"{TAKE_AWAY}stop ?-?words?", rf"{TAKE_AWAY}(very )?common words"),
        _stop_words,
    ),
    Recipe(
        "sublinear",
        "Data",
        "good",
        TEXT,
        (
            "Use the log of the counts.",
            "Take the logarithm of the counts.",
            "Use sublinear TF-IDF.",
            "Use TF-IDF on the log of the counts.",
        ),
        (
            r"(tf-?idf (of|on|with) )?(the )?log(arithm)?s? of (the )?(word )?counts",
            r"sublinear( tf-?idf| counts)?",
        ),
        _sublinear,
    ),
    Recipe(
        "rare_words",
        "Data",
        "harmless",
        TEXT,
        (
            "Drop rare words.",
            "Remove the rare words.",
            "Leave out rare words.",
            "Drop the words of few texts.",
        ),
        (r"(drop|remove|leave out|ignore|without)( the| very)? rare words", rf"{TAKE_AWAY}words (of|in) few texts"),
        _rare_words,
    ),
    Recipe(
        "words_and_letters",
        "Data",
        "good",
        TEXT,
        (
            "Use words and letters.",
            "Count words and letters.",
            "Add the letters to the words.",
            "Count letters too.",
        ),
        (r"(words and )?letters( to the words)?",),
        _words_and_letters,
    ),
    Recipe(
        "topics",
        "Data",
        "harmless",
        TEXT,
        (
            "Reduce the words to topics.",
            "Use topics of the texts.",
            "Add a step that finds topics.",
            "Use TruncatedSVD.",
        ),
        (r"topics?", r"truncated ?svd", r"latent semantic\w*"),
        _topics,
    ),
)
