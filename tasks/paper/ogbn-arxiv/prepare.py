"""Computer science papers and their citations, split by year as in the Open Graph Benchmark."""

import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.raw import open_raw

NUM_FEATURES = 128
TABLES = (
    *("raw/node-feat", "raw/edge", "raw/node_year", "raw/node-label"),
    *("split/time/train", "split/time/valid", "split/time/test"),
)


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write the papers to `train.csv` (until 2017), `valid.csv` (2018) and `test.csv` (later), with their row as id.

    `features.npy` has a row of 128 numbers for each paper, and `edges.csv` a row for each citation. The target is the
    number of the subject, 0 to 39. OGB's own files are not copied, because they hold the target of every paper.
    """
    names = [f"{name}.csv.gz" for name in TABLES]
    with open_raw(raw, public) as files:
        folder = files.folder("arxiv", names)
        features, edges, years, labels, *parts = (read(folder / name) for name in names)
    if features.shape[1] != NUM_FEATURES:
        raise ValueError(
            f"node-feat.csv.gz has {features.shape[1]} columns, not {NUM_FEATURES}; download arxiv.zip again"
        )
    for name, table in (("node_year", years), ("node-label", labels)):
        if len(table) != len(features):
            raise ValueError(
                f"{name}.csv.gz has {len(table)} rows, but node-feat.csv.gz {len(features)}; download arxiv.zip again"
            )
    papers = pd.DataFrame({"id": np.arange(len(features)), "year": years[0], "target": labels[0]})
    train, valid, test = (papers.iloc[part[0]] for part in parts)
    np.save(public / "features.npy", features.to_numpy())
    edges.set_axis(["citing", "cited"], axis=1).to_csv(public / "edges.csv", index=False)
    train.to_csv(public / "train.csv", index=False)
    valid.to_csv(public / "valid.csv", index=False)
    test.drop(columns="target").to_csv(public / "test.csv", index=False)
    test[["id", "target"]].to_csv(private / "answers.csv", index=False)


def read(file: Path) -> pd.DataFrame:
    """Return a table of numbers without a header. Raises ValueError if it cannot be read."""
    try:
        table = pd.read_csv(file, header=None, dtype=np.float32 if file.name == "node-feat.csv.gz" else np.int64)
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{file.name} cannot be read ({type(error).__name__}); download arxiv.zip again") from error
    if not np.isfinite(table.to_numpy()).all():  # such as the missing cells of a row that is cut short
        row = int(np.isfinite(table.to_numpy()).all(axis=1).argmin())
        raise ValueError(f"row {row + 1} of {file.name} lacks a number; download arxiv.zip again")
    return table
