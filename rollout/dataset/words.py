"""What an edit instruction asks for in two words: its root verb and the noun that the verb acts on.

As in the paper's figure 7 and in Self-Instruct (arXiv 2212.10560, figure 2), but without a parser: a part-of-speech
tagger reads the first sentence, and rules take the place of the tree. An instruction is mostly an imperative, which
taggers trained on written prose take for a noun (`Train on half of the rows`), so it is read behind `You must`. The
root is the first word if that is a verb then, else the first verb of the sentence as it stands. Its noun is the last
word of the first run of nouns behind it, whether the verb takes it directly (`use a random forest`) or by a
preposition (`train with more trees`, which has no direct object and would drop out of the paper's figure). A gerund
with no noun behind it is one itself (`use bagging`).
"""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from rollout.exploration.selection import normalise
from rollout.scripted.recipes import FILE_NAME

MODEL = "morphmodel_en.pgz"  # inside the package HanTa; tags are those of the British National Corpus
MAX_LETTERS = 40  # of a word: what the tagger takes grows with their square
WORD = re.compile(r"[^\W\d_][\w'-]*|\d[\d.,]*|[^\w\s]")
SENTENCE_END = re.compile(r"[.!?;:](?:\s|$)|\n")
ASK = ("You", "must")
VERB, NOUN, GERUND = ("VV", "VD"), ("NN", "NP"), "VVG"
# Words that may stand in a noun phrase before its noun, by tag.
BEFORE_NOUN = ("AJ", "AT", "AV", "CRD", "DT", "DPS", "ORD", "POS", "VVI", "VVN", "VVD", "VVB")

Tagged = tuple[str, str, str]  # a word, its lemma, its tag


def normal_form(instruction: str) -> str:
    """Return an instruction without what tells no two apart: file names, case, spaces, the closing mark."""
    return re.sub(r"\s+", " ", FILE_NAME.sub("script", instruction)).strip().rstrip(".!;:").rstrip().lower()


@cache
def verb_and_noun(instruction: str) -> tuple[str, str]:
    """Return the lemmas of an instruction's root verb and of its noun; `` for what it does not have."""
    text = normalise(FILE_NAME.sub("script", instruction))
    sentence = SENTENCE_END.split(text, maxsplit=1)[0]
    words = [word[:MAX_LETTERS] for word in WORD.findall(sentence)]
    if not words:
        return "", ""
    first = words[0] if any(letter.isupper() for letter in words[0][1:]) else words[0].lower()
    asked = _tag((*ASK, first, *words[1:]))[len(ASK) :]
    if asked[0][2].startswith(VERB):
        return asked[0][1].lower(), _noun(asked[1:])
    plain = _tag(tuple(words))
    for place, (_, lemma, tag) in enumerate(plain):
        if tag.startswith(VERB):
            return lemma.lower(), _noun(plain[place + 1 :])
    return "", _noun(plain)


def _noun(words: Sequence[Tagged]) -> str:
    """Return the lemma of the first noun of `words`, the last one of a run of them; `` where there is none."""
    found = ""
    for place, (word, lemma, tag) in enumerate(words):
        noun = tag.startswith(NOUN)
        if tag == GERUND:
            following = words[place + 1][2] if place + 1 < len(words) else ""
            noun, lemma = not following.startswith((*NOUN, *BEFORE_NOUN)), word
        if noun:
            # A name has no other form: the tagger's lemma of `Bayes` would be `bay`.
            found = (word if any(letter.isupper() for letter in word) else lemma).lower()
        elif found:
            break
    return found


@cache
def _tagger() -> Any:
    from HanTa.HanoverTagger import HanoverTagger  # reads its model on first use, which takes a third of a second

    return HanoverTagger(MODEL)


def _tag(words: tuple[str, ...]) -> list[Tagged]:
    return [(word, lemma, tag) for word, lemma, tag in _tagger().tag_sent(list(words))]
