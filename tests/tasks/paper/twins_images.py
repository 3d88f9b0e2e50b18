"""Tiny synthetic data sets in the raw format of the paper's four tasks of labelled photos, learnable from colour."""

import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image


def photo(rng: np.random.Generator, hue: int, size: tuple[int, int] = (32, 32)) -> np.ndarray:
    """Return an image of noise around one of ten colors, `[height, width, 3]`."""
    colour = 128 + 100 * np.sin(hue * 0.63 + np.array([0, 2, 4]))
    return np.clip(rng.normal(colour, 30, (*size, 3)), 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray) -> bytes:
    """Return the image as a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG")
    return file.getvalue()


def zipped(files: Mapping[str, bytes]) -> bytes:
    """Return a compressed archive of files."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


class Python2Pickler(pickle._Pickler):  # pyright: ignore
    """A pickler that writes text and bytes like Python 2's strings, as in the batches of CIFAR-10."""

    dispatch = {**pickle._Pickler.dispatch}  # pyright: ignore

    def save_string(self, content: bytes | str) -> None:
        data = content.encode("ascii") if isinstance(content, str) else content
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(content)

    dispatch[bytes] = dispatch[str] = save_string


def batch(images: np.ndarray, labels: np.ndarray, name: str) -> bytes:
    """Return a pickled batch of CIFAR-10: a row for each image, its planes one after another."""
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    names = [f"{number}.png".encode() for number in range(len(images))]
    content = {b"batch_label": name.encode(), b"labels": labels.tolist(), b"data": planes, b"filenames": names}
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(content)
    return file.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def write_cifar_archive(file: Path, batches: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Write `cifar-10-python.tar.gz` of images, `[N, 32, 32, 3]` of uint8, and labels, `[N]`, by batch."""
    with tarfile.open(file, "w:gz") as archive:
        for name, (images, labels) in batches.items():
            content = batch(images, labels, name)
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def cifar_10(raw: Path, rng: np.random.Generator) -> None:
    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.permutation(np.arange(count) % 10)
        return np.stack([photo(rng, label) for label in labels]), labels

    names = ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"]
    write_cifar_archive(raw / "cifar-10-python.tar.gz", {name: draw(300) for name in names})


def aerial_cactus_identification(raw: Path, rng: np.random.Generator) -> None:
    names = [f"{rng.bytes(16).hex()}.jpg" for _ in range(200)]
    labels = np.arange(200) % 4 > 0  # three of four photos show one
    photos = {name: jpeg(photo(rng, int(label))) for name, label in zip(names, labels, strict=True)}
    unlabelled = [f"{rng.bytes(16).hex()}.jpg" for _ in range(5)]
    pd.DataFrame({"id": names, "has_cactus": labels.astype(int)}).to_csv(raw / "train.csv", index=False)
    pd.DataFrame({"id": unlabelled, "has_cactus": 0.5}).to_csv(raw / "sample_submission.csv", index=False)
    (raw / "train.zip").write_bytes(zipped({f"train/{name}": content for name, content in photos.items()}))
    (raw / "test.zip").write_bytes(zipped({f"test/{name}": jpeg(photo(rng, 0)) for name in unlabelled}))


def dogs_vs_cats_redux(raw: Path, rng: np.random.Generator) -> None:
    def draw(hue: int) -> bytes:
        return jpeg(photo(rng, hue, (int(rng.integers(60, 120)), int(rng.integers(60, 120)))))

    train = {f"train/{kind}.{number}.jpg": draw(hue) for hue, kind in enumerate(("cat", "dog")) for number in range(60)}
    test = {f"test/{number}.jpg": draw(0) for number in range(1, 6)}
    submission = "id,label\n" + "".join(f"{number},0.5\n" for number in range(1, 6))
    # the whole competition in one archive, as its "download all" and the command line give it
    whole = {
        "sample_submission.csv": submission.encode(),
        "test.zip": zipped(test),
        "train.zip": zipped({"train/": b"", **train}),
    }
    (raw / "dogs-vs-cats-redux-kernels-edition.zip").write_bytes(zipped(whole))


def plant_pathology_2020(raw: Path, rng: np.random.Generator) -> None:
    classes = ["healthy", "multiple_diseases", "rust", "scab"]
    labels = rng.permutation(np.arange(160) % 4)
    train = pd.DataFrame(np.eye(4, dtype=int)[labels], columns=classes)
    train.insert(0, "image_id", [f"Train_{number}" for number in range(len(train))])
    test = pd.DataFrame({"image_id": [f"Test_{number}" for number in range(5)]})
    photos = {
        f"images/{id_}.jpg": photo(rng, hue, (84, 128)) for id_, hue in zip(train["image_id"], labels, strict=True)
    }
    photos |= {f"images/{id_}.jpg": photo(rng, 0, (84, 128)) for id_ in test["image_id"]}
    whole = {
        **{name: jpeg(image) for name, image in photos.items()},
        "sample_submission.csv": test.assign(**dict.fromkeys(classes, 0.25)).to_csv(index=False).encode(),
        "test.csv": test.to_csv(index=False).encode(),
        "train.csv": train.to_csv(index=False).encode(),
    }
    (raw / "plant-pathology-2020-fgvc7.zip").write_bytes(zipped(whole))


TWINS = {
    "cifar-10": cifar_10,
    "aerial-cactus-identification": aerial_cactus_identification,
    "dogs-vs-cats-redux-kernels-edition": dogs_vs_cats_redux,
    "plant-pathology-2020-fgvc7": plant_pathology_2020,
}
