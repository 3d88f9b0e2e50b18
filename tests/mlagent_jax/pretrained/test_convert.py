"""A GGUF file of a Llama or Qwen2 network becomes a Qwen2 folder with the same logits, or one line says why not."""

import errno
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, Qwen2Config

import mlagent_jax
from mlagent_jax import convert
from mlagent_jax.model.families import read_config
from mlagent_jax.model.hf import MARKER
from rollout.tokenizer.chat import SPECIAL_TOKENS, ChatTokenizer

HEADS, KV_HEADS, HEAD_DIM = 4, 2, 32  # of 128 and 64 rows; Q4_1 and Q8_0 have blocks of 32
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
Change = Callable[[gguf.GGUFWriter], None]


def make_model(architecture: str, tied: bool) -> PreTrainedModel:
    """Return a random network with two layers, in which no norm is 1 and no bias is 0."""
    config = {"llama": LlamaConfig, "qwen2": Qwen2Config}[architecture](
        vocab_size=len(tokens()),
        hidden_size=HEADS * HEAD_DIM,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=512,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_theta": 3000.0, "rope_type": "default"},
        tie_word_embeddings=tied,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).float().eval()
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def tokens() -> list[str]:
    return [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab", "abc"]


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Return rows of q or k in the order of the format, in which the two rows of a rotary pair are adjacent."""
    size = weight.shape[0] // heads
    order = [
        head * size + half * size // 2 + pair for head in range(heads) for pair in range(size // 2) for half in (0, 1)
    ]
    return weight[order]


def write_gguf(path: Path, model: PreTrainedModel, type_: Type = Type.F32, change: Change | None = None) -> Path:
    """Write `model` as llama.cpp's converter does, set its weights to the stored values; apply `change` last."""
    config = model.config
    architecture = config.model_type
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(2)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2" if architecture == "qwen2" else "smollm")
    writer.add_token_list(tokens())
    writer.add_token_types([3] * len(SPECIAL_TOKENS) + [1] * (len(tokens()) - len(SPECIAL_TOKENS)))
    writer.add_token_merges(["a b", "ab c"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    state = model.state_dict()
    for name, tensor in state.items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stored = type_ if tensor.ndim == 2 else Type.F32
        packed = gguf.quantize(tensor.numpy(), stored)
        # Blocks lie along a row, so the order of the rows changes no value.
        tensor.copy_(torch.from_numpy(gguf.dequantize(packed, stored)).bfloat16())
        adjacent = {"q_proj": HEADS, "k_proj": KV_HEADS} if architecture == "llama" else {}
        heads = adjacent.get(name.split(".")[-2])
        writer.add_tensor(gguf_name(name), interleaved(packed, heads) if heads else packed, raw_dtype=stored)
    if change is not None:
        change(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gguf_name(name: str) -> str:
    top = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    stem, _, kind = name.rpartition(".")
    if stem in top:
        return f"{top[stem]}.{kind}"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{LAYER_NAMES[rest]}.{kind}"


@pytest.mark.parametrize(
    ("type_", "tied"),
    [(Type.F32, True), (Type.F16, False), (Type.BF16, True), (Type.Q8_0, False), (Type.Q4_1, True)],
    ids=lambda value: getattr(value, "name", None),
)
def test_logits_are_those_of_the_llama_in_the_file(type_: Type, tied: bool, tmp_path: Path) -> None:
    llama = make_model("llama", tied)
    assert_same_logits(llama, write_gguf(tmp_path / "tiny.gguf", llama, type_), tmp_path / "models" / "tiny")


@pytest.mark.parametrize(("type_", "tied"), [(Type.F16, True), (Type.Q5_0, False)], ids=["tied", "untied"])
def test_logits_are_those_of_the_qwen2_in_the_file(type_: Type, tied: bool, tmp_path: Path) -> None:
    qwen = make_model("qwen2", tied)
    assert_same_logits(qwen, write_gguf(tmp_path / "tiny.gguf", qwen, type_), tmp_path / "out")


@pytest.mark.parametrize("head_is_finer", [True, False])
def test_a_tied_matrix_is_taken_from_the_finer_of_its_copies(head_is_finer: bool, tmp_path: Path) -> None:
    qwen = make_model("qwen2", tied=True)
    table = qwen.state_dict()["model.embed_tokens.weight"].numpy().copy()
    head, embedding = (Type.Q8_0, Type.Q4_0) if head_is_finer else (Type.Q4_0, Type.Q8_0)
    source = write_gguf(
        tmp_path / "tiny.gguf",
        qwen,
        embedding,
        lambda file: file.add_tensor("output.weight", gguf.quantize(table, head), raw_dtype=head),
    )
    fine = torch.from_numpy(gguf.dequantize(gguf.quantize(table, Type.Q8_0), Type.Q8_0)).bfloat16()
    qwen.state_dict()["model.embed_tokens.weight"].copy_(fine)
    assert_same_logits(qwen, source, tmp_path / "out")


def test_a_head_that_was_trained_away_from_the_embedding_is_not_tied(tmp_path: Path) -> None:
    qwen = make_model("qwen2", tied=False)
    state = qwen.state_dict()
    embedding = state["model.embed_tokens.weight"]
    state["lm_head.weight"].copy_(embedding + 0.02 * embedding.std() * torch.ones_like(embedding))
    assert_same_logits(qwen, write_gguf(tmp_path / "tiny.gguf", qwen, Type.F32), tmp_path / "out")


def test_the_parts_of_a_split_file_are_one_checkpoint(tmp_path: Path) -> None:
    qwen = make_model("qwen2", tied=False)
    whole = write_gguf(tmp_path / "whole.gguf", qwen, Type.F16)
    parts = split(whole, tmp_path, 3)
    assert_same_logits(qwen, parts[1], tmp_path / "out")
    parts[2].unlink()
    with pytest.raises(FileNotFoundError, match=r"tiny-00003-of-00003\.gguf: no such file; expected a GGUF file"):
        convert.convert(parts[0], tmp_path / "other")
    parts[2].write_bytes(parts[1].read_bytes())
    with pytest.raises(ValueError, match=r"is in two parts; fetch all parts again"):
        convert.convert(parts[0], tmp_path / "other")


def split(whole: Path, folder: Path, count: int) -> list[Path]:
    """Return the parts of a file, of which the first has the metadata, as llama.cpp's tool writes them."""
    reader = gguf.GGUFReader(whole)
    paths = [folder / f"tiny-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1)]
    for number, path in enumerate(paths):
        writer = gguf.GGUFWriter(path, "qwen2")
        if number == 0:
            fields = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
            for name in fields.keys() - {"general.architecture"}:
                field = fields[name]
                sub_type = field.types[-1] if field.types[0] is gguf.GGUFValueType.ARRAY else None
                writer.add_key_value(name, field.contents(), field.types[0], sub_type)
            writer.add_key_value("split.tensors.count", len(reader.tensors), gguf.GGUFValueType.INT32)
        writer.add_key_value("split.count", count, gguf.GGUFValueType.UINT16)
        for tensor in reader.tensors[number::count]:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return paths


def assert_same_logits(model: PreTrainedModel, source: Path, out: Path) -> None:
    """Convert a file, and compare the logits of the folder, by us and by transformers, with those of `model`."""
    convert.convert(source, out)
    tied = model.config.tie_word_embeddings
    rows = np.random.default_rng(0).integers(0, model.config.vocab_size, (2, 40))
    with torch.no_grad():
        expected = model(torch.from_numpy(rows)).logits.numpy()
        theirs = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)(torch.from_numpy(rows)).logits.numpy()
    np.testing.assert_allclose(mlagent_jax.load_policy(out).logits(rows), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(theirs, expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 1  # far from uniform
    config = read_config(out)
    assert (config.rope_theta, config.rms_norm_eps, config.tie_word_embeddings) == (3000.0, 1e-5, tied)
    assert (config.bos_token_id, config.eos_token_id, config.max_position_embeddings) == (1, 2, 512)


@pytest.fixture(scope="module")
def llama() -> PreTrainedModel:
    return make_model("llama", tied=True)


def test_folder_is_a_whole_checkpoint_with_a_tokenizer(llama: PreTrainedModel, tmp_path: Path, capsys) -> None:
    source, out = write_gguf(tmp_path / "tiny.gguf", llama), tmp_path / "tiny"
    assert convert.main([str(source), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: converted from {source}\n"
    names = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", MARKER}
    assert {path.name for path in out.iterdir()} == names
    tokenizer = ChatTokenizer(out, "system")
    assert [tokens()[index] for index in tokenizer.encode("12abcd")] == ["1", "2", "abc", "d"]
    assert (tokenizer.vocab_size, tokenizer.eos_id) == (len(tokens()), 2)
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.gguf", "tiny"}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda file: file.add_string("general.architecture", "qwen3"),
            "its architecture is 'qwen3'; expected 'llama' or 'qwen2'",
        ),
        (
            lambda file: file.add_rope_scaling_factor(8.0),
            "llama.rope.scaling.factor=8.0 has no counterpart in a Qwen2 network",
        ),
        (lambda file: file.add_expert_count(8), "llama.expert_count=8 has no counterpart in a Qwen2 network"),
        (lambda file: file.add_key_length(16), "llama.rope.dimension_count=32; expected the size of a head, 16"),
        (lambda file: file.add_block_count(3), "blk.2.attn_norm.weight: missing"),
        (lambda file: file.add_head_count(0), "llama.attention.head_count is 0; expected a whole number of 1 or more"),
        (lambda file: file.add_feed_forward_length(64), r"shape \(96, 128\), by the metadata \(64, 128\)"),
        (
            lambda file: file.add_array("llama.attention.head_count", [4, 4]),
            r"head_count is \[4, 4\]; expected a whole",
        ),
        (
            lambda file: file.add_tensor("rope_freqs.weight", np.ones(16, np.float32)),
            "rope_freqs.weight: not of a Qwen2 network",
        ),
        (lambda file: file.add_vocab_size(7), "llama.vocab_size=7; expected the 261 rows of the embedding"),
        (lambda file: file.add_eos_token_id(9999), "tokenizer.ggml.eos_token_id is 9999; expected a token id below"),
        (
            lambda file: file.add_layer_norm_rms_eps(float("nan")),
            "rms_epsilon is nan; expected a finite number",
        ),
        (lambda file: file.add_rope_freq_base(0.0), "rope.freq_base is 0.0; expected a finite number above 0"),
        (lambda file: file.add_bool("llama.block_count", True), "block_count is True; expected a whole number"),
        (lambda file: file.add_uint16("split.count", 2), "one of 2 files; name them PREFIX-00001-of-00002.gguf"),
        (
            lambda file: file.add_tokenizer_pre("llama-bpe"),
            "tiny.gguf: the tokenizer is 'gpt2' with the split 'llama-b",
        ),
        (
            lambda file: (file.add_token_list([*tokens(), "more"]), file.add_token_types([3] * 3 + [1] * 259)),
            "tiny.gguf: 261 embedding rows for a tokenizer of 262 tokens",
        ),
    ],
)
def test_file_that_is_no_qwen2_network_is_refused_in_one_line(
    llama: PreTrainedModel, change: Change, complaint: str, tmp_path: Path
) -> None:
    source = write_gguf(tmp_path / "tiny.gguf", llama, change=lambda writer: overwrite(writer, change))
    with pytest.raises(ValueError, match=complaint) as caught:
        convert.convert(source, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.gguf"]


def test_weight_that_is_not_finite_is_refused_by_name(tmp_path: Path) -> None:
    llama = make_model("llama", True)
    llama.model.norm.weight.data[3] = float("nan")
    source = write_gguf(tmp_path / "tiny.gguf", llama)
    with pytest.raises(ValueError, match="output_norm.weight holds values that are not finite"):
        convert.convert(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.gguf"]


def test_license_and_missing_stop_token_of_the_file_are_those_of_the_folder(
    llama: PreTrainedModel, tmp_path: Path
) -> None:
    def change(writer: gguf.GGUFWriter) -> None:
        writer.add_license("apache-2.0")
        del writer.kv_data[0]["tokenizer.ggml.eos_token_id"]

    convert.convert(write_gguf(tmp_path / "tiny.gguf", llama, change=change), tmp_path / "out")
    assert (tmp_path / "out" / "LICENSE").read_text() == "license: apache-2.0\n"
    assert read_config(tmp_path / "out").eos_token_id is None


def test_license_that_is_given_is_that_of_the_folder(llama: PreTrainedModel, tmp_path: Path) -> None:
    source, given = write_gguf(tmp_path / "tiny.gguf", llama), tmp_path / "given"
    given.write_text("tiny.gguf was published by A under B")
    assert convert.main([str(source), "--license", str(given), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "LICENSE").read_bytes() == given.read_bytes()
    assert convert.main([str(source), "--license", str(tmp_path / "none"), "--out", str(tmp_path / "other")]) == 2
    assert not (tmp_path / "other").exists()


def overwrite(writer: gguf.GGUFWriter, change: Change) -> None:
    """Apply a change whose keys may exist, which the writer does not allow."""
    before = writer.kv_data[0].copy()
    writer.kv_data[0].clear()
    change(writer)
    writer.kv_data[0] = before | writer.kv_data[0]


def test_file_that_cannot_be_read_is_said_in_one_line(llama: PreTrainedModel, tmp_path: Path, capsys) -> None:
    source = write_gguf(tmp_path / "tiny.gguf", llama)
    whole = source.read_bytes()
    out = tmp_path / "out"

    def said() -> str:
        assert convert.main([str(source), "--out", str(out)]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1 and not out.exists()
        return captured.err

    source.unlink()
    assert said() == f"error: {source}: no such file; expected a GGUF file\n"
    for damaged in (b"", b"not a model", whole[:9], whole[:3000], whole[:-100]):
        source.write_bytes(damaged)
        assert f"error: {source}: not a readable GGUF file" in said()
    source.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")
    assert f"error: {source}: a Git LFS pointer instead of the file; run `git lfs pull`" in said()


def test_folder_that_is_there_already_is_left_alone(llama: PreTrainedModel, tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "tiny.gguf", llama)
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="out exists; remove it, or choose another folder"):
        convert.convert(source, tmp_path / "out")
    assert not any((tmp_path / "out").iterdir())


def test_failure_half_way_leaves_nothing(
    llama: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    source = write_gguf(tmp_path / "tiny.gguf", llama)

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mlagent_jax.model.hf.tensor_file._write", fail)
    assert convert.main([str(source), "--out", str(tmp_path / "out")]) == 2
    assert "model.safetensors: No space left on device; free some space" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.gguf"]
