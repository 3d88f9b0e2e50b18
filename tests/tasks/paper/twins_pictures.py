"""Tiny synthetic data of the paper's pictures, leaves and citations, each in the raw format of the real data."""

import io
import json
import lzma
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from PIL import Image, ImageDraw

from tasks.registry import PAPER

QUICK = [{"id": lzma.FILTER_LZMA2, "preset": 0}]


def denoising_dirty_documents(raw: Path, rng: np.random.Generator) -> None:
    """Twenty pages of two sizes with some lines of text, and the same with a stain, a crease and noise."""
    dirty, clean = {}, {}
    for number in range(1, 21):
        width, height = (90, 42) if number % 2 else (90, 26)
        page = Image.new("L", (width, height), 255)
        for line in range(0, height - 12, 12):
            words = "".join(rng.choice(list("abcdefghij klmnop"), 14))
            ImageDraw.Draw(page).text((2, line), words, fill=0)
        rows, columns = np.mgrid[:height, :width]
        stain = 90 * np.exp(-((rows - rng.uniform(0, height)) ** 2 + (columns - rng.uniform(0, width)) ** 2) / 300)
        crease = 60 * (np.abs(columns - rng.uniform(0, width)) < 2)
        pixels = np.asarray(page, np.float64)
        noisy = np.clip(0.8 * pixels + 25 - stain - crease + rng.normal(0, 8, pixels.shape), 0, 255)
        clean[f"train_cleaned/{number}.png"] = png(page)
        dirty[f"train/{number}.png"] = png(Image.fromarray(noisy.astype(np.uint8)))
    write_zip(raw / "train.zip", dirty)
    write_zip(raw / "train_cleaned.zip", clean)
    write_zip(raw / "test.zip", {"test/99.png": dirty["train/1.png"]})
    write_zip(raw / "sampleSubmission.csv.zip", {"sampleSubmission.csv": b"id,value\n99_1_1,1\n"})


def statoil_iceberg_classifier_challenge(raw: Path, rng: np.random.Generator) -> None:
    """Sixty pictures: an iceberg is a wide bright patch, a ship a small one."""
    from py7zr import SevenZipFile

    pictures = []
    rows, columns = np.mgrid[:75, :75] - 37
    for number in range(60):
        is_iceberg = int(rng.integers(2))
        patch = 25 * np.exp(-(rows**2 + columns**2) / (150 if is_iceberg else 15))
        bands = [(patch + rng.normal(mean, 2, (75, 75))).round(2).ravel().tolist() for mean in (-22, -27)]
        angle = "na" if number % 20 == 0 else round(float(rng.uniform(30, 45)), 4)
        fields = {"id": f"{number:08x}", "band_1": bands[0], "band_2": bands[1], "inc_angle": angle}
        pictures.append({**fields, "is_iceberg": is_iceberg})
    for name in ("train", "test"):
        with SevenZipFile(raw / f"{name}.json.7z", "w", filters=QUICK) as archive:
            archive.writestr(json.dumps(pictures if name == "train" else []), f"data/processed/{name}.json")


def whale_categorization_playground(raw: Path, rng: np.random.Generator) -> None:
    """Photographs of thirty whales, one to eight of each, and of some without a name; a whale is its stripes."""
    whales = [f"w_{number:07x}" for number in rng.integers(1, 16**6, 30)]
    names = [*(whale for number, whale in enumerate(whales) for _ in range(1 + number % 8)), *["new_whale"] * 20]
    rng.shuffle(names)
    images = [f"{number:08x}.jpg" for number in rng.choice(16**6, len(names), replace=False)]
    photographs = {}
    for image, whale in zip(images, names, strict=True):
        period = 4 + 3 * whales.index(whale) if whale in whales else rng.uniform(4, 100)
        stripes = 128 + 90 * np.sin(np.arange(128) * 2 * np.pi / period) + rng.normal(0, 10, (64, 128))
        photograph = Image.fromarray(np.clip(stripes, 0, 255).astype(np.uint8))
        photographs[f"train/{image}"] = jpeg(photograph.convert("RGB" if len(photographs) % 2 else "L"))
    write_zip(raw / "train.zip", photographs)
    write_zip(raw / "test.zip", {"test/ffffffff.jpg": next(iter(photographs.values()))})
    pd.DataFrame({"Image": images, "Id": names}).to_csv(raw / "train.csv", index=False)
    (raw / "sample_submission.csv").write_text("Image,Id\nffffffff.jpg,new_whale\n")


def leaf_classification(raw: Path, rng: np.random.Generator) -> None:
    """Eight leaves of each of the 99 species, whose measures lie around those of their species."""
    stated = yaml.safe_load((PAPER / "leaf-classification/task.yaml").read_text())
    species = np.array(stated["submission"]["columns"])
    kinds = rng.permutation(np.repeat(np.arange(len(species)), 8))
    measures = rng.uniform(0, 0.1, (len(species), 192))[kinds] + rng.normal(0, 0.01, (len(kinds), 192))
    columns = [f"{kind}{number}" for kind in ("margin", "shape", "texture") for number in range(1, 65)]
    table = pd.DataFrame(measures.round(6), columns=columns)
    table.insert(0, "id", np.sort(rng.choice(np.arange(1, 1585), len(kinds), replace=False)))
    table.insert(1, "species", species[kinds])
    write_zip(raw / "train.csv.zip", {"train.csv": table.to_csv(index=False).encode()})
    write_zip(raw / "test.csv.zip", {"test.csv": table[:1].drop(columns="species").to_csv(index=False).encode()})
    leaf = jpeg(Image.new("L", (8, 8), 255))
    write_zip(raw / "images.zip", {f"images/{number}.jpg": leaf for number in table["id"]})


def ogbn_arxiv(raw: Path, rng: np.random.Generator) -> None:
    """Six hundred papers whose words and citations mostly keep to their subject."""
    num_papers = 600
    subjects, years = rng.integers(0, 40, num_papers), rng.integers(2013, 2021, num_papers)
    features = rng.normal(0, 1, (40, 128))[subjects] * 0.1 + rng.normal(0, 0.2, (num_papers, 128))
    citing = np.repeat(np.arange(num_papers), 6)
    same = np.array([rng.choice(np.flatnonzero(subjects == subjects[paper])) for paper in citing])
    cited = np.where(rng.random(len(citing)) < 0.3, same, rng.integers(0, num_papers, len(citing)))
    tables = {
        "raw/node-feat": features.round(6),
        "raw/node-label": subjects,
        "raw/node_year": years,
        "raw/edge": np.stack([citing, cited], axis=1),
        "raw/num-node-list": [num_papers],
        "raw/num-edge-list": [len(citing)],
        "split/time/train": np.flatnonzero(years <= 2017),
        "split/time/valid": np.flatnonzero(years == 2018),
        "split/time/test": np.flatnonzero(years >= 2019),
    }
    files = {f"arxiv/{name}.csv.gz": gzipped(table) for name, table in tables.items()}
    write_zip(raw / "arxiv.zip", {**files, "arxiv/RELEASE_v1.txt": b"", "arxiv/mapping/README.md": b""})


def gzipped(table: Iterable[object]) -> bytes:
    """Return numbers as a compressed CSV file without a header."""
    file = io.BytesIO()
    pd.DataFrame(table).to_csv(file, index=False, header=False, compression="gzip")
    return file.getvalue()


def png(image: Image.Image) -> bytes:
    """Return a picture as a file, without loss."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def jpeg(image: Image.Image) -> bytes:
    """Return a picture as a file, with loss."""
    file = io.BytesIO()
    image.save(file, "JPEG")
    return file.getvalue()


def write_zip(archive: Path, files: Mapping[str, bytes]) -> None:
    """Write a zip archive."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)


TWINS: Mapping[str, Callable[[Path, np.random.Generator], None]] = {
    "denoising-dirty-documents": denoising_dirty_documents,
    "leaf-classification": leaf_classification,
    "ogbn-arxiv": ogbn_arxiv,
    "statoil-iceberg-classifier-challenge": statoil_iceberg_classifier_challenge,
    "whale-categorization-playground": whale_categorization_playground,
}
