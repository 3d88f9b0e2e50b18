"""The files of a checkpoint are those that its index names, and a file beside them is not sent to a server."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rollout.inference.weight_files import tensor_shapes, weight_files


def save(path: Path, **tensors: float) -> None:
    save_file({name: np.full(3, value, np.float32) for name, value in tensors.items()}, path)


def names(folder: Path) -> list[str]:
    return [path.name for path in weight_files(folder)]


def test_files_are_those_of_the_index(tmp_path: Path) -> None:
    save(tmp_path / "model-1.safetensors", a=1.0)
    save(tmp_path / "model-2.safetensors", b=1.0)
    save(tmp_path / "consolidated.safetensors", a=2.0, c=2.0)
    assert len(names(tmp_path)) == 3
    weight_map = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert names(tmp_path) == ["model-1.safetensors", "model-2.safetensors"]
    assert tensor_shapes(tmp_path) == {"a": (3,), "b": (3,)}


def test_file_beside_the_only_one_of_a_checkpoint_is_left_out(tmp_path: Path) -> None:
    save(tmp_path / "model.safetensors", a=1.0)
    save(tmp_path / "other.safetensors", a=2.0)
    assert names(tmp_path) == ["model.safetensors"]


def test_damaged_file_and_index_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save(path, a=1.0)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"model.safetensors is not a complete safetensors file: it has \d+ bytes of"):
        tensor_shapes(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(ValueError, match="model.safetensors.index.json: holds an array"):
        weight_files(tmp_path)
