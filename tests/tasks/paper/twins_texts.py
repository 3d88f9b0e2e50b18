"""Small data sets that look like what Kaggle delivers for the text competitions, and can be learnt from."""

import csv
import io
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

WORDS = [a + b for a in ("ba", "do", "fe", "gi", "ku", "lo") for b in ("lan", "mer", "nit", "pos", "rud", "sel")]
LABELS = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]


def write(file: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file, in an archive of its own if `file` ends in .zip, as in older competitions."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    if file.suffix != ".zip":
        file.write_text(text.getvalue(), encoding="utf-8")
        return
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(file.stem if file.stem.endswith(".csv") else f"{file.stem}.csv", text.getvalue())


def ids(rng: np.random.Generator, number: int, length: int) -> list[str]:
    """Return distinct ids of hexadecimal digits, the first of which looks like a number."""
    drawn = rng.choice(16**length if length < 8 else 2**32, number - 1, replace=False)
    return ["1".zfill(length), *(f"{value:x}".zfill(length) for value in drawn)]


def sentence(rng: np.random.Generator, length: int, sign: str = "", share: float = 0.0) -> str:
    """Return words, about a share of which is `sign`, with quotes, commas, line breaks and umlauts."""
    words = [sign if sign and rng.random() < share else str(rng.choice(WORDS)) for _ in range(length)]
    words[rng.integers(length)] += str(rng.choice([",", "\n\n", ' "naïve"', ";", "."]))
    return " ".join(words)


def feedback(raw: Path, rng: np.random.Generator) -> None:
    """Write 300 essays, whose six ratings depend on the frequency of a word, and Kaggle's unlabeled test file."""
    ratings = ["cohesion", "syntax", "vocabulary", "phraseology", "grammar", "conventions"]
    rows = []
    for text_id in ids(rng, 300, 12):
        level = rng.random()
        values = np.clip(1 + np.round(2 * (4 * level + rng.normal(0, 0.3, 6))) / 2, 1, 5)
        rows.append([text_id.upper(), sentence(rng, 60, "therefore", level / 2), *values])
    write(raw / "train.csv", ["text_id", "full_text", *ratings], rows)
    write(raw / "test.csv", ["text_id", "full_text"], [["F00D", "one"], ["BEEF", "two"]])
    write(raw / "sample_submission.csv", ["text_id", *ratings], [["F00D", *[3.0] * 6], ["BEEF", *[3.0] * 6]])


def essays(raw: Path, rng: np.random.Generator) -> None:
    """Write 301 essays; better ones are longer."""
    rows = []
    for essay_id in ids(rng, 301, 7):
        score = int(rng.integers(1, 7))
        rows.append([essay_id, sentence(rng, 20 * score + int(rng.integers(60)), "because", 0.2), score])
    write(raw / "train.csv", ["essay_id", "full_text", "score"], rows)
    write(raw / "test.csv", ["essay_id", "full_text"], [["000d118", "one"], ["000fe60", "two"]])
    write(raw / "sample_submission.csv", ["essay_id", "score"], [["000d118", 3], ["000fe60", 3]])


def insults(raw: Path, rng: np.random.Generator) -> None:
    """Write 200 and 120 quoted comments, often without a date, one of them twice."""

    def comments(number: int) -> list[list[object]]:
        rows: list[list[object]] = []
        for _ in range(number):
            insult = int(rng.random() < 0.3)
            date = f"20120618{rng.integers(10**6):06}Z" if rng.random() < 0.6 else ""
            text = sentence(rng, 12, "you fool", 0.1 * insult).replace("\n", "\\n").replace("ï", "\\xef")
            rows.append([insult, date, f'"{text}"'])
        return rows

    columns, test = ["Insult", "Date", "Comment"], comments(119)
    test.append([1 - int(str(test[0][0])), *test[0][1:]])  # the first comment again, with the other label
    write(raw / "train.csv", columns, comments(200))
    write(raw / "test.csv", ["id", "Date", "Comment"], [[index + 1, *row[1:]] for index, row in enumerate(test[:50])])
    stage = [["PublicTest" if index < 50 else "PrivateTest"] for index in range(120)]
    write(raw / "test_with_solutions.csv", [*columns, "Usage"], [r + s for r, s in zip(test, stage, strict=True)])
    write(raw / "sample_submission_null.csv", columns, [[0, *row[1:]] for row in test])


def spooky(raw: Path, rng: np.random.Generator) -> None:
    """Write 300 sentences of three authors, each with a word of its own, in an archive."""
    signs = {"EAP": "upon", "HPL": "ancient", "MWS": "misery"}
    rows = []
    for number in rng.choice(30000, 300, replace=False):
        author = str(rng.choice(list(signs), p=[0.4, 0.3, 0.3]))
        rows.append([f"id{number:05}", sentence(rng, 15, signs[author], 0.15), author])
    write(raw / "train.zip", ["id", "text", "author"], rows)
    write(raw / "test.zip", ["id", "text"], [["id99998", "one"], ["id99999", "two"]])
    write(raw / "sample_submission.zip", ["id", *signs], [["id99998", 0.4, 0.3, 0.3], ["id99999", 0.4, 0.3, 0.3]])


def jigsaw(raw: Path, rng: np.random.Generator) -> None:
    """Write 300 and 200 comments with six labels, each table in an archive; half of the test rows do not count."""

    def comments(keys: Sequence[str]) -> tuple[list[list[object]], list[list[object]]]:
        texts, labels = [], []
        for key in keys:
            drawn = (rng.random(6) < 0.2).astype(int)
            signs = " ".join(
                f"{name}ish" for name, label in zip(LABELS, drawn, strict=True) if rng.random() < 0.1 + 0.6 * label
            )
            texts.append([key, f"{signs} {sentence(rng, 15)}"])
            labels.append([key, *drawn])
        return texts, labels

    keys = ids(rng, 500, 16)
    texts, labels = comments(keys[:300])
    write(
        raw / "train.csv.zip", ["id", "comment_text", *LABELS], [t + v[1:] for t, v in zip(texts, labels, strict=True)]
    )
    texts, labels = comments(keys[300:])
    hidden = [row if index % 2 else [row[0], *[-1] * 6] for index, row in enumerate(labels)]
    write(raw / "test.csv.zip", ["id", "comment_text"], texts)
    write(raw / "test_labels.csv.zip", ["id", *LABELS], hidden)
    write(raw / "sample_submission.csv.zip", ["id", *LABELS], [[row[0], *[0.5] * 6] for row in texts])


def patents(raw: Path, rng: np.random.Generator) -> None:
    """Write 300 pairs of phrases, similar ones with characteristic words; one phrase is the text NA."""
    rows = []
    for index, key in enumerate(ids(rng, 300, 16)):
        score = rng.integers(5) / 4
        anchor = f"{rng.choice(WORDS)} {rng.choice(WORDS)}"
        target = (
            " ".join([str(rng.choice(WORDS)), str(rng.choice(WORDS)), *["same"] * int(4 * score)]) if index else "NA"
        )
        rows.append([key, anchor, target, f"{rng.choice(list('ABCH'))}{rng.integers(10, 70)}", score])
    write(raw / "train.csv", ["id", "anchor", "target", "context", "score"], rows)
    write(raw / "test.csv", ["id", "anchor", "target", "context"], [["4112d61851461f60", "one", "two", "A01"]])
    write(raw / "sample_submission.csv", ["id", "score"], [["4112d61851461f60", 0]])


TWINS = {
    "feedback-prize-english-language-learning": feedback,
    "learning-agency-lab-automated-essay-scoring-2": essays,
    "detecting-insults-in-social-commentary": insults,
    "spooky-author-identification": spooky,
    "jigsaw-toxic-comment-classification-challenge": jigsaw,
    "us-patent-phrase-to-phrase-matching": patents,
}
