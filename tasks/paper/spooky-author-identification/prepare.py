"""Authors of sentences: the labeled sentences, split as in MLE-bench."""

from pathlib import Path

from sklearn.model_selection import train_test_split

from tasks.raw import open_raw
from tasks.text_table import write_table

# The prediction for every sentence in Kaggle's sample submission.
SHARES = {"EAP": 0.403493538995863, "HPL": 0.287808366106543, "MWS": 0.308698094897594}


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write a tenth of the sentences as the test set; the answers are 1 for the author and 0 for the others."""
    with open_raw(raw, public) as files:
        sentences = files.table("train.csv", ["id", "text", "author"])
    train, test = train_test_split(sentences, test_size=0.1, random_state=0)
    answers = {author: (test["author"] == author).astype(int) for author in SHARES}
    write_table(train, public / "train.csv")
    write_table(test.drop(columns="author"), public / "test.csv")
    write_table(test[["id"]].assign(**SHARES), public / "sample_submission.csv")
    write_table(test[["id"]].assign(**answers), private / "test.csv")
