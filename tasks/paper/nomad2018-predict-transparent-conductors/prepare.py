"""Transparent conductors and their geometry, split as in MLE-bench."""

import shutil
from pathlib import Path

import pandas as pd
from sklearn.model_selection import train_test_split

from tasks.raw import open_raw

ENERGIES = ["formation_energy_ev_natom", "bandgap_energy_ev"]


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write 10 % of the competition's training data as the test set, and renumber the ids of both sets from 1."""
    with open_raw(raw, public) as files:
        materials = files.table("train.csv", ["id", "spacegroup", "number_of_total_atoms", *ENERGIES])
        geometry = files.folder("train", materials["id"] + "/geometry.xyz")
        train, test = train_test_split(materials, test_size=0.1, random_state=0)
        for name, rows in (("train", train), ("test", test)):
            old_ids = list(rows["id"])
            rows["id"] = range(1, len(rows) + 1)
            for id_, old_id in zip(rows["id"], old_ids, strict=True):
                folder = public / name / str(id_)
                folder.mkdir(parents=True)
                shutil.copyfile(geometry / old_id / "geometry.xyz", folder / "geometry.xyz")
    train.to_csv(public / "train.csv", index=False)
    test.drop(columns=ENERGIES).to_csv(public / "test.csv", index=False)
    sample = pd.DataFrame({"id": test["id"], ENERGIES[0]: 0.1779, ENERGIES[1]: 1.8892})
    sample.to_csv(public / "sample_submission.csv", index=False)
    test.to_csv(private / "test.csv", index=False)
