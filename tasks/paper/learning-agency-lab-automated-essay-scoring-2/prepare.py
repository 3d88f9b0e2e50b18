"""Scores of students' essays: the labeled essays, split as in MLE-bench."""

from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from tasks.raw import open_raw
from tasks.text_table import write_table


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write a tenth of the essays as the test set."""
    with open_raw(raw, public) as files:
        essays = files.table("train.csv", ["essay_id", "full_text", "score"])
    train, test = train_test_split(essays, test_size=0.1, random_state=0)
    guesses = np.random.RandomState(42).randint(1, 7, size=len(test))
    write_table(train, public / "train.csv")
    write_table(test.drop(columns="score"), public / "test.csv")
    write_table(test[["essay_id"]].assign(score=guesses), public / "sample_submission.csv")
    write_table(test, private / "answers.csv")
