"""Handwritten digits of 8 x 8 pixels: the data set included in scikit-learn, which the sandbox masks."""

from pathlib import Path

from sklearn.datasets import load_digits

from tasks.split import write_split


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write 1,797 images with a column for each pixel, `pixel_0_0` to `pixel_7_7`; the target is the digit."""
    images = load_digits(as_frame=True).frame
    pixels = images.drop(columns="target").astype(int)
    write_split(pixels.assign(target=images["target"]), public, private, num_train=800)
