"""The root verb of an edit instruction and the noun that it acts on.

As in figure 7 of the paper and figure 2 of Self-Instruct (arXiv 2212.10560), but with a part-of-speech tagger and rules
instead of a parser; only the first sentence is read. Most instructions are imperatives, whose verb a tagger trained on
written prose mistakes for a noun (`Train on half of the rows`), so the sentence is tagged after `You must`. The root
is the first word if that makes it a verb, else the first verb of the sentence as it is. The noun is the last word of
the first run of nouns after the root, whether it is the direct object (`use a random forest`) or follows a preposition
(`train with more trees`, which has no direct object and would drop out of the paper's figure). A gerund without a noun
after it is a noun itself (`use bagging`).
"""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from rollout.exploration.idea_text import normalize

MODEL = "morphmodel_en.pgz"  # inside the package HanTa; tags are those of the British National Corpus
MAX_LETTERS = 40  # longest word; the tagger's time grows with the square of the length
FILE_NAME = re.compile(r"\S+\.(?:py|csv)\b")
WORD = re.compile(r"[^\W\d_][\w'-]*|\d[\d.,]*|[^\w\s]")
SENTENCE_END = re.compile(r"[.!?;:](?:\s|$)|\n")
PREFIX = ("You", "must")
VERB, NOUN, GERUND = ("VV", "VD"), ("NN", "NP"), "VVG"
# Tags of the words that may precede the noun in a noun phrase.
BEFORE_NOUN = ("AJ", "AT", "AV", "CRD", "DT", "DPS", "ORD", "POS", "VVI", "VVN", "VVD", "VVB")

TaggedWord = tuple[str, str, str]  # word, lemma, tag


def normal_form(instruction: str) -> str:
    """Return an instruction without file names, case, extra spaces and the closing mark."""
    return re.sub(r"\s+", " ", FILE_NAME.sub("script", instruction)).strip().rstrip(".!;:").rstrip().lower()


@cache
def verb_and_noun(instruction: str) -> tuple[str, str]:
    """Return the lemmas of the root verb of an instruction and of its noun, each empty if there is none."""
    text = normalize(FILE_NAME.sub("script", instruction))
    sentence = SENTENCE_END.split(text, maxsplit=1)[0]
    words = [word[:MAX_LETTERS] for word in WORD.findall(sentence)]
    if not words:
        return "", ""
    first = words[0] if any(letter.isupper() for letter in words[0][1:]) else words[0].lower()
    prefixed = _tag((*PREFIX, first, *words[1:]))[len(PREFIX) :]
    if prefixed[0][2].startswith(VERB):
        return prefixed[0][1].lower(), _noun(prefixed[1:])
    plain = _tag(tuple(words))
    for index, (_, lemma, tag) in enumerate(plain):
        if tag.startswith(VERB):
            return lemma.lower(), _noun(plain[index + 1 :])
    return "", _noun(plain)


def _noun(words: Sequence[TaggedWord]) -> str:
    """Return the lemma of the last word of the first run of nouns in `words`, empty if there is none."""
    noun = ""
    for index, (word, lemma, tag) in enumerate(words):
        is_noun = tag.startswith(NOUN)
        if tag == GERUND:
            following = words[index + 1][2] if index + 1 < len(words) else ""
            is_noun, lemma = not following.startswith((*NOUN, *BEFORE_NOUN)), word
        if is_noun:
            # The tagger's lemma of a name is wrong: `bay` for `Bayes`.
            noun = (word if any(letter.isupper() for letter in word) else lemma).lower()
        elif noun:
            break
    return noun


@cache
def _tagger() -> Any:
    from HanTa.HanoverTagger import HanoverTagger  # loads its model on first use, which takes a third of a second

    return HanoverTagger(MODEL)


def _tag(words: tuple[str, ...]) -> list[TaggedWord]:
    return [(word, lemma, tag) for word, lemma, tag in _tagger().tag_sent(list(words))]
