"""Ratings of sentences in product reviews: data of the VADER paper, from the source archive of vaderSentiment."""

import io
import sys
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.split import write_split

ARCHIVE = "vaderSentiment-3.3.2.tar.gz"
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
# Filled by `make env`, because the installed package does not include the ratings.
FETCHED = Path(sys.prefix) / "opt/data"
FETCH = "pip download --no-deps --no-binary :all: vaderSentiment==3.3.2"
RATINGS = "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt"


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write 3,500 sentences; the target is their mean rating, from -4 to 4, in six classes from 1 to 6."""
    archive = raw / ARCHIVE if (raw / ARCHIVE).exists() else FETCHED / ARCHIVE
    if not archive.exists():
        raise ValueError(f"there is no {archive}; fetch it: {FETCH} --dest {FETCHED}")
    inner = io.BytesIO(member(archive.open("rb"), INNER))
    lines = [line.split("\t") for line in member(inner, RATINGS).decode("utf-8").splitlines()]
    text = pd.Series([sentence for _, _, sentence in lines]).str.split().str.join(" ")
    rating = np.floor([float(mean) for _, mean, _ in lines]).clip(-3, 2).astype(int) + 4
    table = pd.DataFrame({"text": text, "target": rating})
    write_split(table.drop_duplicates("text"), public, private, num_train=1500, num_test=2000)


def member(archive: io.BufferedIOBase, name: str) -> bytes:
    """Return the content of a file in a compressed archive."""
    with archive, tarfile.open(fileobj=archive) as files:
        return files.extractfile(name).read()
