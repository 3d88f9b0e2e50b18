"""The files of a checkpoint are those that its index names, and a file beside them is not sent to a server."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rollout.errors import ServerError
from rollout.inference.weight_files import changed_tensors, check_digests, tensor_shapes, weight_files
from rollout.storage.tensor_digest import tensor_digest


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


FUSED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}


def test_layer_is_loaded_wholly_if_one_of_its_tensors_changed() -> None:
    """The server may fuse several layers of the checkpoint; those of the same name in another block do not count."""
    names = [f"model.layers.{block}.self_attn.{part}_proj.weight" for block in (0, 1) for part in "qkvo"]
    names += ["model.layers.0.self_attn.q_proj.bias", "model.layers.0.mlp.gate_proj.weight", "model.norm.weight"]
    held = dict.fromkeys(names, "old")
    for changed, loaded in (
        ([], []),
        (["model.norm.weight"], ["model.norm.weight"]),
        (["model.layers.1.self_attn.o_proj.weight"], ["model.layers.1.self_attn.o_proj.weight"]),
        (["model.layers.0.self_attn.k_proj.weight"], [*names[:3], "model.layers.0.self_attn.q_proj.bias"]),
        (names, names),
    ):
        assert changed_tensors(held | dict.fromkeys(changed, "new"), held, FUSED) == loaded
    assert changed_tensors(held, {}, FUSED) == names
    held.pop("model.norm.weight")
    assert changed_tensors(dict.fromkeys(names, "old"), held, FUSED) == ["model.norm.weight"]


def test_digests_of_this_and_of_earlier_versions_are_compared(tmp_path: Path) -> None:
    save(tmp_path / "model.safetensors", a=1.0, b=2.0)
    arrays = {name: np.full(3, value, np.float32) for name, value in (("a", 1.0), ("b", 2.0))}
    fast = {name: tensor_digest(memoryview(array.tobytes())) for name, array in arrays.items()}
    earlier = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}
    for digests in (fast, earlier, {}):
        check_digests(tmp_path, digests)
        if digests:
            with pytest.raises(ServerError, match=r"b in .*model.safetensors is not the tensor that was sent"):
                check_digests(tmp_path, digests | {"b": digests["a"]})
