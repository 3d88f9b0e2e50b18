"""Handwritten digits, 8 x 8 pixels: the set that scikit-learn carries (and that the sandbox masks)."""

from pathlib import Path

from sklearn.datasets import load_digits

from tasks.split import write_split


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write 1,797 images, a column for each pixel from `pixel_0_0` to `pixel_7_7`; the target is the digit."""
    images = load_digits(as_frame=True).frame
    pixels = images.drop(columns="target").astype(int)
    write_split(pixels.assign(target=images["target"]), public, private, num_train=800)
