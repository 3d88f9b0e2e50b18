"""Ratings of essays by English language learners: the labeled essays, split as in MLAgentBench."""

from pathlib import Path

from tasks.raw import open_raw
from tasks.text_table import write_table

RATINGS = ["cohesion", "syntax", "vocabulary", "phraseology", "grammar", "conventions"]


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write the last 2 % of the essays, shuffled with the seed 42, as the test set."""
    with open_raw(raw, public) as files:
        essays = files.table("train.csv", ["text_id", "full_text", *RATINGS])
    essays = essays.sample(frac=1, random_state=42)
    num_train = int(len(essays) * 0.98)
    train, test = essays[:num_train], essays[num_train:]
    write_table(train, public / "train.csv")
    write_table(test.drop(columns=RATINGS), public / "test.csv")
    write_table(test[["text_id"]].assign(**dict.fromkeys(RATINGS, 3.0)), public / "sample_submission.csv")
    write_table(test.drop(columns="full_text"), private / "answers.csv")
