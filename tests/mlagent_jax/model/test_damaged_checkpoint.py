"""A checkpoint that is malformed, quantized, an adapter or of two minds is refused in one line that names the place."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from mlagent_jax.model import hf
from mlagent_jax.model.families import read_config
from mlagent_jax.model.hf import check_hf, load_hf, save_hf
from mlagent_jax.model.sharding import parameters_of
from mlagent_jax.model.transformer import Transformer

UP, EMBEDDING, HEAD = "model.layers.1.mlp.up_proj.weight", "model.embed_tokens.weight", "lm_head.weight"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1389\n"
Tensors = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def original(make_model: Callable[..., Transformer], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    save_hf(make_model(), folder)
    return folder


@pytest.fixture
def checkpoint(original: Path, tmp_path: Path) -> Path:
    """A folder with a tied checkpoint of two layers."""
    return shutil.copytree(original, tmp_path / "checkpoint")


def rewrite(folder: Path, change: Callable[[Tensors], Any]) -> None:
    tensors = load_file(folder / hf.WEIGHTS)
    change(tensors)
    save_file(tensors, folder / hf.WEIGHTS)


def configure(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def split(folder: Path, change: Callable[[Tensors, Tensors, dict[str, str]], Any] = lambda *_: None) -> None:
    """Divide a checkpoint into two files and an index, and apply `change` to the three."""
    tensors = load_file(folder / hf.WEIGHTS)
    (folder / hf.WEIGHTS).unlink()
    names = sorted(tensors)
    first, second = ({name: tensors[name] for name in part} for part in (names[::2], names[1::2]))
    weight_map = dict.fromkeys(first, FIRST) | dict.fromkeys(second, SECOND)
    change(first, second, weight_map)
    save_file(first, folder / FIRST)
    save_file(second, folder / SECOND)
    (folder / hf.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def refuses(folder: Path, complaint: str, load: Callable[[Path], object] = load_hf) -> str:
    with pytest.raises((ValueError, FileNotFoundError), match=complaint) as caught:
        load(folder)
    text = str(caught.value)
    assert "\n" not in text and str(folder) in text
    return text


def test_tied_head_that_differs_from_the_embedding_is_refused(checkpoint: Path) -> None:
    rewrite(checkpoint, lambda tensors: tensors.update({HEAD: 2 * tensors[EMBEDDING]}))
    refuses(checkpoint, "tie_word_embeddings=true, but lm_head.weight is not the embedding; set")
    refuses(checkpoint, "is not the embedding", check_hf)
    configure(checkpoint, tie_word_embeddings=False)
    assert not load_hf(checkpoint).config.tie_word_embeddings


def test_missing_head_hints_at_tying(checkpoint: Path) -> None:
    configure(checkpoint, tie_word_embeddings=False)
    refuses(checkpoint, r"lm_head.weight: missing \(.*set tie_word_embeddings to true in config.json\)")


def test_tensor_in_two_files_is_refused_if_they_differ(checkpoint: Path) -> None:
    def copy(factor: int) -> Callable[[Tensors, Tensors, dict[str, str]], None]:
        """Put a multiple of a tensor into the file that the index does not name for it."""
        return lambda first, second, where: (second if where[UP] == FIRST else first).update(
            {UP: factor * (first | second)[UP]}
        )

    whole = parameters_of(load_hf(checkpoint))
    other = shutil.copytree(checkpoint, checkpoint.with_name("other"))
    split(checkpoint, copy(1))
    jax.tree.map(np.testing.assert_array_equal, parameters_of(load_hf(checkpoint)), whole)
    split(other, copy(2))
    refuses(other, f"holds another '{UP}' than the file that {hf.INDEX} names")


def test_tensor_that_is_not_where_the_index_says_is_refused(checkpoint: Path) -> None:
    split(checkpoint, lambda first, second, where: where.update({UP: SECOND if where[UP] == FIRST else FIRST}))
    refuses(checkpoint, f"has no tensor '{UP}'; {hf.INDEX} names this file")


def test_tensor_that_the_index_does_not_name_is_refused(checkpoint: Path) -> None:
    split(checkpoint, lambda first, second, where: where.pop(UP))
    refuses(checkpoint, f"holds '{UP}', which {hf.INDEX} does not name; fetch both again")


@pytest.mark.parametrize(
    ("index", "complaint"),
    [
        ("[]", "holds an array; expected a JSON object"),
        ("{}", "no weight_map"),
        ('{"weight_map": []}', "no weight_map"),
        ('{"weight_map": {}}', "no weight_map"),
        ('{"weight_map": {"a": 1}}', "names '1' as the file of 'a'"),
        ('{"weight_map": {"a": null}}', "names 'None' as the file of 'a'"),
        ('{"weight_map": {"a": "../model.safetensors"}}', "expected a safetensors file in the same folder"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "expected a safetensors file in the same folder"),
        ('{"weight_map": {"a": "model.bin"}}', "expected a safetensors file in the same folder"),
        ('{"weight_map": {"a": "gone.safetensors"}}', "beside model.safetensors.index.json, which names other files"),
        ('{"weight_map": {"a": "mod', "not JSON from line 1"),
        ("", "not JSON from line 1"),
        ('{"weight_map": {"a": "1.safetensors", "a": "2.safetensors"}}', "states 'a' twice; remove one of the two"),
        (POINTER.decode(), "a Git LFS pointer instead of the file; run `git lfs pull`"),
    ],
)
def test_malformed_index_is_named(index: str, complaint: str, checkpoint: Path) -> None:
    (checkpoint / hf.INDEX).write_text(index)
    assert hf.INDEX in refuses(checkpoint, complaint)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"[1, 2]", "holds an array; expected a JSON object"),
        (b"null", "holds null; expected a JSON object"),
        (b'"qwen2"', "holds a string; expected a JSON object"),
        (b"7", "holds a single value; expected a JSON object"),
        (b"", "not JSON from line 1, column 1 on; fetch it again"),
        (b"{'a': 1}", "not JSON from line 1, column 2 on"),
        (b"\xff\xfe{}", "not JSON in UTF-8"),
        (b"\xef\xbb\xbf{}", "begins with a byte order mark; save it as UTF-8 without one"),
        (b"[" * 100_000, "not JSON in UTF-8"),
        (b'{"vocab_size": ' + b"9" * 5000 + b"}", "not JSON in UTF-8"),
        (POINTER, "a Git LFS pointer instead of the file"),
        (b'{"model_type": ["qwen2"]}', r'model_type is \["qwen2"\]; expected one of'),
        (b"{}", "model_type is null; expected one of"),
        (b'{"rope_theta": 1e6, "rope_theta": 1e4}', "states 'rope_theta' twice; remove one of the two"),
    ],
)
def test_config_that_is_no_configuration_is_named(content: bytes, complaint: str, checkpoint: Path) -> None:
    (checkpoint / "config.json").write_bytes(content)
    assert "config.json" in refuses(checkpoint, complaint, read_config)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (lambda whole: b"", "it has only 0 bytes; fetch it again"),
        (lambda whole: whole[:100], "it ends after 100 bytes, inside its header of"),
        (lambda whole: whole[:-1], r"it has \d+ bytes of \d+"),
        (lambda whole: whole[: len(whole) // 2], r"it has \d+ bytes of \d+"),
        (lambda whole: whole + b"more", r"it has \d+ bytes of \d+"),
        (lambda whole: whole[:8] + b"x" * (len(whole) - 8), "its header is damaged"),
        (lambda whole: b"<html>not found</html>" * 9, "it does not begin like one"),
        (lambda whole: POINTER, "a Git LFS pointer instead of the file"),
    ],
)
def test_damaged_weight_file_is_named(content: Callable[[bytes], bytes], complaint: str, checkpoint: Path) -> None:
    path = checkpoint / hf.WEIGHTS
    path.write_bytes(content(path.read_bytes()))
    text = refuses(checkpoint, complaint, check_hf)
    assert hf.WEIGHTS in text and "Error" not in text


@given(start=st.integers(0, 40_000), length=st.integers(1, 4_000), byte=st.sampled_from([0, 32, 123, 255]))
def test_any_byte_range_destroyed_is_one_line_or_a_checkpoint(
    original: Path, start: int, length: int, byte: int
) -> None:
    for name in (hf.WEIGHTS, "config.json"):
        path = original / name
        whole = path.read_bytes()
        first = start % len(whole)
        try:
            path.write_bytes(whole[:first] + bytes([byte]) * min(length, len(whole) - first) + whole[first + length :])
            check_hf(original)
        except (ValueError, FileNotFoundError) as error:
            assert "\n" not in str(error) and str(original) in str(error)
        finally:
            path.write_bytes(whole)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", [UP, EMBEDDING, "model.norm.weight", "model.layers.0.self_attn.k_proj.bias"])
def test_weight_that_is_not_finite_is_refused_by_name(name: str, value: float, checkpoint: Path) -> None:
    rewrite(checkpoint, lambda tensors: tensors[name].reshape(-1).__setitem__(3, value))
    refuses(checkpoint, f"{name} holds 1 values that are not finite")


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
def test_every_float_type_loads(dtype: Any, checkpoint: Path) -> None:
    rewrite(checkpoint, lambda tensors: tensors.update({name: t.astype(dtype) for name, t in tensors.items()}))
    expected = load_file(checkpoint / hf.WEIGHTS)[EMBEDDING].astype(np.float32)
    np.testing.assert_array_equal(load_hf(checkpoint).embed_tokens[...], expected)


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint8, np.bool_])
def test_tensor_of_another_type_is_refused(dtype: Any, checkpoint: Path) -> None:
    rewrite(checkpoint, lambda tensors: tensors.update({UP: np.ones(tensors[UP].shape, dtype)}))
    refuses(checkpoint, f"{UP} is of type [IUB]\\w+; expected F64 or F32 or F16 or BF16 .*not quantized", check_hf)


def test_value_beyond_float32_is_refused(checkpoint: Path) -> None:
    rewrite(checkpoint, lambda tensors: tensors.update({UP: np.full(tensors[UP].shape, 1e300)}))
    refuses(checkpoint, "not finite in float32")


def test_quantized_names_are_named(checkpoint: Path) -> None:
    rewrite(checkpoint, lambda tensors: tensors.update({UP.replace("weight", "scales"): np.ones(3, np.float16)}))
    refuses(checkpoint, "up_proj.scales: unknown .quantized weights cannot be trained", check_hf)


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        (("pytorch_model.bin",), "weights are in PyTorch's format; convert them there by python -c"),
        (("pytorch_model.bin.index.json", "pytorch_model-00001-of-00002.bin"), "in PyTorch's format"),
        (("model.Q4_0.gguf",), "weights are in a GGUF file; convert it by mlagent convert"),
        ((FIRST, SECOND), f"there is '{FIRST}', but no {hf.INDEX}; fetch the index too"),
        ((), "expected the model's weights in safetensors format"),
        (("adapter_config.json", "adapter_model.safetensors"), "adapter_config.json: the folder holds a LoRA adapter"),
    ],
)
def test_folder_with_weights_in_another_form_says_what_to_do(
    files: tuple[str, ...], complaint: str, checkpoint: Path
) -> None:
    (checkpoint / hf.WEIGHTS).unlink()
    for name in files:
        (checkpoint / name).write_bytes(b"{}")
    refuses(checkpoint, complaint, check_hf)


@pytest.mark.parametrize("name", [hf.WEIGHTS, "config.json", FIRST])
def test_link_to_nothing_is_named_as_one(name: str, checkpoint: Path) -> None:
    if name == FIRST:
        split(checkpoint)
    (checkpoint / name).unlink()
    (checkpoint / name).symlink_to("../../blobs/0f3a")
    refuses(
        checkpoint, f"{name}: a link to '../../blobs/0f3a', which does not exist; copy the checkpoint with `cp -rL`"
    )


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "base_model.model."])
def test_names_of_a_wrapped_model_are_explained(prefix: str, checkpoint: Path) -> None:
    def wrap(tensors: Tensors) -> None:
        for name in list(tensors):
            tensors[prefix + name] = tensors.pop(name)

    rewrite(checkpoint, wrap)
    refuses(checkpoint, f"; each name begins with '{prefix}': save the model itself")


def test_nan_in_both_copies_of_a_tied_head_is_named_as_nan(checkpoint: Path) -> None:
    def damage(tensors: Tensors) -> None:
        tensors[EMBEDDING][3, 2] = np.nan
        tensors[HEAD] = tensors[EMBEDDING].copy()

    rewrite(checkpoint, damage)
    refuses(checkpoint, f"{EMBEDDING} holds 1 values that are not finite")


def test_a_path_that_is_no_checkpoint_says_what_to_give_instead(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    (tmp_path / "cache" / "snapshots").mkdir(parents=True)
    checkpoint.rename(tmp_path / "cache" / "snapshots" / "0f3a")
    (tmp_path / "empty").mkdir()
    refuses(tmp_path / "a.gguf", "a GGUF file is converted first, by mlagent convert .*a.gguf --out")
    refuses(tmp_path / "owner" / "name", "a model of the Hub is downloaded first, by hf download OWNER/NAME")
    refuses(tmp_path / "cache", "a folder of the download cache; use .*/cache/snapshots/0f3a$")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    refuses(tmp_path / "adapter", "the folder holds a LoRA adapter; merge it")
    refuses(tmp_path / "empty", "expected a Hugging Face model directory with config.json")
