"""Checkpoints load and save under transformers' names, and every tensor that does not fit is named."""

import errno
import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM

from mlagent_jax.model import hf
from mlagent_jax.model.families import read_config
from mlagent_jax.model.families.qwen2 import Qwen2Config
from mlagent_jax.model.hf import hf_shapes, hf_tensors, load_hf, save_hf
from mlagent_jax.model.policy import ExportedPolicy
from mlagent_jax.model.sharding import make_mesh, parameter_shardings, parameters_of
from mlagent_jax.model.transformer import Transformer
from rollout.storage.safetensors_layout import read_spans
from rollout.storage.tensor_digest import tensor_digest

UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def model(
    request: pytest.FixtureRequest, make_model: Callable[..., Transformer], tiny_config: Qwen2Config
) -> Transformer:
    return make_model(replace(tiny_config, tie_word_embeddings=request.param, eos_token_id=7, bos_token_id=6))


@pytest.fixture
def checkpoint(make_model: Callable[..., Transformer], tmp_path: Path) -> Path:
    """A folder with a tied checkpoint of two layers."""
    save_hf(make_model(), tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def rewrite(folder: Path, change: Callable[[dict[str, np.ndarray]], Any]) -> None:
    """Change the tensors of a checkpoint in place."""
    tensors = load_file(folder / hf.WEIGHTS)
    change(tensors)
    save_file(tensors, folder / hf.WEIGHTS)


def test_loading_gives_back_what_was_saved(model: Transformer, tmp_path: Path) -> None:
    save_hf(model, tmp_path / "a")
    again = load_hf(tmp_path / "a")
    assert again.config == model.config
    jax.tree.map(np.testing.assert_array_equal, parameters_of(again), parameters_of(model))
    save_hf(again, tmp_path / "b")
    for name in (hf.WEIGHTS, "config.json", hf.MARKER):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_transformers_loads_an_export_with_equal_logits_and_saves_equal_tensors(
    model: Transformer, tmp_path: Path
) -> None:
    save_hf(model, tmp_path / "ours")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    assert (theirs.config.eos_token_id, theirs.config.bos_token_id) == (7, 6)
    tokens = np.random.default_rng(0).integers(0, model.config.vocab_size, (2, 9))
    with torch.no_grad():
        expected = theirs(torch.from_numpy(tokens)).logits.numpy()
    np.testing.assert_allclose(ExportedPolicy(model).logits(tokens), expected, rtol=1e-4, atol=1e-4)
    theirs.save_pretrained(tmp_path / "theirs")
    ours, saved = load_file(tmp_path / "ours" / hf.WEIGHTS), load_file(tmp_path / "theirs" / hf.WEIGHTS)
    assert ours.keys() == saved.keys()
    assert all(ours[name].tobytes() == saved[name].tobytes() for name in ours)
    again = {name: np.asarray(tensor) for name, tensor in hf_tensors(load_hf(tmp_path / "theirs"))}
    assert all(again[name].tobytes() == saved[name].tobytes() for name in saved)


def test_checkpoint_in_bfloat16_loads_as_its_fp32_values(
    make_model: Callable[..., Transformer], tmp_path: Path
) -> None:
    model = make_model()
    save_hf(model, tmp_path, "bfloat16")
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    loaded = parameters_of(load_hf(tmp_path))
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(jnp.float32), parameters_of(model))
    jax.tree.map(np.testing.assert_array_equal, loaded, rounded)


def test_checkpoint_in_shards_loads(checkpoint: Path) -> None:
    whole = parameters_of(load_hf(checkpoint))
    tensors = load_file(checkpoint / hf.WEIGHTS)
    (checkpoint / hf.WEIGHTS).unlink()
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, part in shards.items():
        save_file({name: tensors[name] for name in part}, checkpoint / shard)
    weight_map = {name: shard for shard, part in shards.items() for name in part}
    (checkpoint / hf.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    jax.tree.map(np.testing.assert_array_equal, parameters_of(load_hf(checkpoint)), whole)
    (checkpoint / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model-00002-of-00002.safetensors: no such file"):
        load_hf(checkpoint)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_large_model_is_cut_into_files_and_comes_back_byte_for_byte(
    model: Transformer, dtype: str, tmp_path: Path
) -> None:
    save_hf(model, tmp_path / "one", dtype)
    save_hf(load_hf(tmp_path / "one"), tmp_path / "many", dtype, max_file_bytes=12_000)
    files = sorted(path.name for path in (tmp_path / "many").glob("*.safetensors"))
    assert len(files) >= 3 and files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert all((tmp_path / "many" / name).stat().st_size < 16_000 for name in files)
    index = json.loads((tmp_path / "many" / hf.INDEX).read_text())
    one = load_file(tmp_path / "one" / hf.WEIGHTS)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in one.values())
    many = {name: load_file(tmp_path / "many" / file)[name] for name, file in index["weight_map"].items()}
    assert {name: tensor.tobytes() for name, tensor in many.items()} == {n: t.tobytes() for n, t in one.items()}

    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "many", dtype=dtype)
    theirs.save_pretrained(tmp_path / "theirs")
    save_hf(load_hf(tmp_path / "theirs"), tmp_path / "again", dtype)
    assert (tmp_path / "again" / hf.WEIGHTS).read_bytes() == (tmp_path / "one" / hf.WEIGHTS).read_bytes()

    save_hf(model, tmp_path / "many", dtype)  # nothing of the larger save is left
    assert [path.name for path in (tmp_path / "many").glob("*.safetensors*")] == [hf.WEIGHTS]


@pytest.mark.parametrize("shape", [(1, 4, 2), (2, 2, 2), (1, 8, 1), (1, 1, 2)])
def test_each_device_reads_its_own_part(
    model: Transformer, shape: tuple[int, int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_hf(model, tmp_path)
    mesh = make_mesh(*shape, 1)
    read = []
    real = hf.load.Tensors.read
    monkeypatch.setattr(hf.load.Tensors, "read", lambda *given: (part := real(*given), read.append(part.size))[0])
    loaded = parameters_of(load_hf(tmp_path, mesh=mesh))
    assert jax.tree.map(lambda leaf: leaf.sharding, loaded) == parameter_shardings(loaded, mesh)
    jax.tree.map(np.testing.assert_array_equal, loaded, parameters_of(model))
    held = [shard.data.size for leaf in jax.tree.leaves(loaded) for shard in leaf.addressable_shards]
    assert sum(read) <= sum(held) and max(read) == max(held)


def test_reading_and_writing_hold_no_second_copy_on_the_host(
    make_model: Callable[..., Transformer], tiny_config: Qwen2Config, tmp_path: Path
) -> None:
    model = make_model(replace(tiny_config, hidden_size=128, head_dim=32, intermediate_size=512, num_layers=8))
    leaves = [leaf.nbytes for leaf in jax.tree.leaves(parameters_of(model))]
    tracemalloc.start()
    try:
        save_hf(model, tmp_path, max_file_bytes=max(leaves) // 8)
        written = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        load_hf(tmp_path)
        read = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert written < 0.5 * max(leaves)  # one file's tensors
    assert read < 1.4 * sum(leaves)  # on a CPU what is read may be the device's own array


def test_tied_head_that_is_stored_a_second_time_is_not_unknown(checkpoint: Path) -> None:
    rewrite(checkpoint, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"]}))
    assert load_hf(checkpoint).config.tie_word_embeddings


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda tensors: tensors.pop(UP), f"{UP}: missing"),
        (lambda tensors: tensors.update({"model.extra": np.zeros(2)}), "model.extra: unknown"),
        (
            lambda tensors: tensors.update({UP: tensors[UP].T.copy()}),
            rf"{UP}: checkpoint has \(32, 48\), config.json says \(48, 32\)",
        ),
    ],
)
def test_tensor_that_does_not_fit_is_named_in_one_line(
    checkpoint: Path, change: Callable[[dict[str, np.ndarray]], Any], complaint: str
) -> None:
    rewrite(checkpoint, change)
    with pytest.raises(ValueError, match=complaint) as caught:
        load_hf(checkpoint)
    assert "\n" not in str(caught.value)
    assert str(checkpoint) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"model_type": "llama"}, "model_type is 'llama'"),
        ({"use_sliding_window": True}, "use_sliding_window=true is not supported"),
        (
            {"rope_parameters": {"rope_theta": 1e4, "rope_type": "yarn"}},
            "rope_parameters.rope_type='yarn' is not supported",
        ),
        ({"rope_parameters": None, "rope_theta": None}, "neither rope_parameters.rope_theta nor rope_theta"),
        ({"hidden_size": None}, "hidden_size is null; expected a whole number"),
    ],
)
def test_config_that_the_network_cannot_have_is_refused(
    checkpoint: Path, change: dict[str, Any], complaint: str
) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=complaint) as caught:
        read_config(checkpoint)
    assert str(path) in str(caught.value)


def test_heads_that_do_not_share_evenly_are_refused(checkpoint: Path) -> None:
    config = read_config(checkpoint)
    with pytest.raises(ValueError, match="num_heads=4 is not a multiple of num_kv_heads=3"):
        replace(config, num_kv_heads=3)
    with pytest.raises(ValueError, match="head_dim=7 is odd"):
        replace(config, head_dim=7)


def test_folder_without_a_model_is_named(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere.config.json: no such file"):
        load_hf(tmp_path / "nowhere")
    (checkpoint / hf.WEIGHTS).write_bytes(b"not safetensors")
    with pytest.raises(ValueError, match="model.safetensors: not a readable safetensors file"):
        load_hf(checkpoint)
    (checkpoint / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json: not JSON"):
        load_hf(checkpoint)


def test_marker_is_written_last_and_leaves_first(
    make_model: Callable[..., Transformer], checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (checkpoint / hf.WEIGHTS).read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(hf.tensor_file, "_write", fail)
    with pytest.raises(OSError, match="no space left"):
        save_hf(make_model(seed=1), checkpoint)
    assert not (checkpoint / hf.MARKER).exists()
    assert (checkpoint / hf.WEIGHTS).read_bytes() == before
    assert sorted(path.name for path in checkpoint.iterdir()) == ["config.json", hf.WEIGHTS]
    monkeypatch.undo()
    save_hf(make_model(seed=1), checkpoint)
    times = {path.name: path.stat().st_mtime_ns for path in checkpoint.iterdir()}
    assert times[hf.MARKER] == max(times.values())


def test_shapes_of_a_checkpoint_are_those_of_its_tensors(model: Transformer) -> None:
    assert {name: tensor.shape for name, tensor in hf_tensors(model)} == hf_shapes(model.config)
    assert len(nnx.to_flat_state(parameters_of(model))) == 14 + (not model.config.tie_word_embeddings)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_digests_are_those_of_the_bytes_in_the_files(model: Transformer, dtype: str, tmp_path: Path) -> None:
    found = save_hf(model, tmp_path, dtype, max_file_bytes=20_000, digest=True)
    expected = {}
    for file in tmp_path.glob("*.safetensors"):
        with open(file, "rb") as content:  # by the format's definition: a length, a header in JSON, and the bytes
            header = json.loads(content.read(int.from_bytes(content.read(8), "little")))
            data = content.read()
        for name, entry in header.items():
            if name != "__metadata__":
                expected[name] = tensor_digest(memoryview(data[slice(*entry["data_offsets"])]))
    assert found == expected and len(found) == len(hf_shapes(model.config))
    assert save_hf(model, tmp_path, dtype) == {}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_tensors_are_cast_on_the_devices_as_numpy_casts_them(model: Transformer, dtype: str, tmp_path: Path) -> None:
    save_hf(model, tmp_path / "whole")
    save_hf(model, tmp_path / "cast", dtype)
    cast = load_file(tmp_path / "cast" / hf.WEIGHTS)
    for name, array in load_file(tmp_path / "whole" / hf.WEIGHTS).items():
        np.testing.assert_array_equal(cast[name], array.astype(jnp.dtype(dtype)), err_msg=name)


def test_tensors_that_a_folder_holds_are_not_written_again(
    make_model: Callable[..., Transformer], model: Transformer, tmp_path: Path
) -> None:
    """Plant other bytes in place of a tensor that did not change: they stay, because nothing is written there."""
    path, other = tmp_path / hf.WEIGHTS, make_model(model.config, seed=1)
    held = save_hf(model, tmp_path, "bfloat16", digest=True)
    inode = path.stat().st_ino
    other.layers.up_proj[...] = model.layers.up_proj[...]
    planted, spans = bytearray(path.read_bytes()), read_spans(path)
    planted[slice(*spans[UP])] = bytes(spans[UP][1] - spans[UP][0])
    path.write_bytes(planted)
    found = save_hf(other, tmp_path, "bfloat16", digest=True, held=held)
    save_hf(other, tmp_path / "other", "bfloat16")
    tensors, expected = load_file(path), load_file(tmp_path / "other" / hf.WEIGHTS)
    assert path.stat().st_ino == inode and not tensors.pop(UP).any() and expected.pop(UP).any()
    for name, array in expected.items():
        np.testing.assert_array_equal(tensors[name], array, err_msg=name)
    assert found[UP] == held[UP] and found[UP.replace("up", "down")] != held[UP.replace("up", "down")]


def test_file_of_another_layout_is_replaced_whole(model: Transformer, tmp_path: Path) -> None:
    held = save_hf(model, tmp_path, "bfloat16", digest=True)
    save_hf(model, tmp_path, "float32")
    assert save_hf(model, tmp_path, "bfloat16", digest=True, held=held) == held
    (tmp_path / hf.WEIGHTS).unlink()
    assert save_hf(model, tmp_path, "bfloat16", digest=True, held=held) == held
    save_hf(model, tmp_path / "other", "bfloat16")
    assert (tmp_path / hf.WEIGHTS).read_bytes() == (tmp_path / "other" / hf.WEIGHTS).read_bytes()


def test_weights_have_the_mode_of_the_other_files(model: Transformer, tmp_path: Path) -> None:
    save_hf(model, tmp_path)
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1


def test_a_full_disk_is_an_error_of_the_system(model: Transformer, tmp_path: Path, files_limited_to: Callable) -> None:
    with files_limited_to(1000), pytest.raises(OSError, match="File too large") as error:
        save_hf(model, tmp_path)
    assert (error.value.errno, error.value.filename) == (errno.EFBIG, str(tmp_path / hf.WEIGHTS))
    assert not list(tmp_path.iterdir())
