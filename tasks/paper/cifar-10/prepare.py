"""CIFAR-10: the five training batches and the test batch in the authors' archive, as arrays."""

import io
import pickle
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.raw import open_raw

ARCHIVE = "cifar-10-python.tar.gz"
TRAIN = [f"data_batch_{number}" for number in range(1, 6)]


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write 50,000 training images with their labels and 10,000 test images, `[N, 32, 32, 3]` of uint8."""
    try:
        with open_raw(raw, public) as files, tarfile.open(files.path(ARCHIVE)) as archive:
            parts = [read_batch(archive, name) for name in (*TRAIN, "test_batch")]
    except (tarfile.ReadError, pickle.UnpicklingError, EOFError, zlib.error) as error:
        raise ValueError(f"{ARCHIVE} cannot be read ({error}); download it again") from None
    *train, test = parts
    images, labels = (np.concatenate(arrays) for arrays in zip(*train, strict=True))
    np.savez(public / "train.npz", images=images, labels=labels)
    np.savez(public / "test.npz", images=test[0])
    answers = pd.DataFrame({"id": range(len(test[1])), "label": test[1]})
    answers.to_csv(private / "answers.csv", index=False)


def read_batch(archive: tarfile.TarFile, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the images, `[N, 32, 32, 3]`, and labels, `[N]`, of a batch, whose rows are the planes of one image."""
    try:
        file = archive.extractfile(f"cifar-10-batches-py/{name}")
        assert file is not None, "a batch is a file"
        batch = ArraysOnly(io.BytesIO(file.read()), encoding="bytes").load()
        planes, labels = batch[b"data"], np.array(batch[b"labels"], dtype=np.uint8)
        images = planes.reshape(len(labels), 3, 32, 32)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{ARCHIVE} has no {name} of 32 x 32 images ({error}); download it again") from None
    return images.transpose(0, 2, 3, 1).copy(), labels


class ArraysOnly(pickle.Unpickler):
    """An unpickler for NumPy arrays that refuses anything else that a pickle can create or call."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Return one of the three objects from which an array is made."""
        if (module_name, global_name) not in {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        }:
            raise pickle.UnpicklingError(f"it needs {module_name}.{global_name}")
        return super().find_class(module_name, global_name)
