"""Read a Llama checkpoint in a GGUF file as a Qwen2 network in which the biases of q, k and v are zero."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, ReaderTensor, dequantize
from jaxtyping import Float

from mlagent_jax.model.config_settings import LARGEST, is_whole
from mlagent_jax.model.families.qwen2 import Qwen2Config
from mlagent_jax.model.hf.layout import TOP_NAMES, hf_layer_name, hf_shapes, top_names
from rollout.storage.checkpoint_files import refuse_pointer

# our parameter -> its tensor in the file, with the prefix `blk.<layer>.` inside a layer; a bias has none
GGUF_NAMES: Mapping[str, str] = {
    "embed_tokens": "token_embd.weight",
    "norm": "output_norm.weight",
    "lm_head": "output.weight",
    "input_layernorm": "attn_norm.weight",
    "q_proj": "attn_q.weight",
    "k_proj": "attn_k.weight",
    "v_proj": "attn_v.weight",
    "o_proj": "attn_output.weight",
    "post_attention_layernorm": "ffn_norm.weight",
    "gate_proj": "ffn_gate.weight",
    "up_proj": "ffn_up.weight",
    "down_proj": "ffn_down.weight",
}
# All keys that are read under `llama.`; Qwen2 has no counterpart of the others (scaled rotary frequencies, experts).
KEYS = {
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.dimension_count",
    "rope.freq_base",
    "vocab_size",
}


class LlamaGGUF:
    """The configuration, the tensors and the metadata of one file."""

    def __init__(self, path: Path) -> None:
        """Read everything except the values of the tensors.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is not a GGUF file, or a property of its network has no counterpart in Qwen2.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path}: no such file; expected a GGUF file")
        refuse_pointer(self.path)
        try:
            reader = GGUFReader(self.path)
            self.metadata: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items()}
        except Exception as error:  # the library raises many types for a damaged file
            raise ValueError(f"{self.path}: not a readable GGUF file ({error}); fetch it again") from None
        self._tensors: dict[str, ReaderTensor] = {tensor.name: tensor for tensor in reader.tensors}
        self.config = self._read_config()
        self._check_tensors()

    def license(self) -> str:
        """Return what the file states about its license, one line each, `` if nothing."""
        stated = {key: value for key, value in self.metadata.items() if key.startswith("general.license")}
        return "".join(f"{key.removeprefix('general.')}: {value}\n" for key, value in stated.items())

    def tensors(self) -> Iterator[tuple[str, Float[np.ndarray, "..."]]]:
        """Yield every (name, fp32 tensor) of the checkpoint, in transformers' names and layout.

        The order is that of `hf_shapes`.

        Raises:
            ValueError: If the gguf package cannot dequantize a tensor.
        """
        shapes = hf_shapes(self.config)
        for name in top_names(self.config):
            yield TOP_NAMES[name], self._values(GGUF_NAMES[name])
        for name in self.config.layer_names:
            for layer in range(self.config.num_layers):
                hf_name = hf_layer_name(self.config, name, layer)
                if name not in GGUF_NAMES:
                    yield hf_name, np.zeros(shapes[hf_name], np.float32)
                elif name in ("q_proj", "k_proj"):
                    yield hf_name, halves(self._values(_layer_name(name, layer)), self.config.head_dim)
                else:
                    yield hf_name, self._values(_layer_name(name, layer))

    def _values(self, name: str) -> Float[np.ndarray, "..."]:
        tensor = self._tensors[name]
        try:
            values = dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError:
            kind = tensor.tensor_type.name
            raise ValueError(
                f"{self.path}: {name} is of type {kind}, unknown to gguf; use a file of another type"
            ) from None
        if not np.isfinite(values).all():
            raise ValueError(f"{self.path}: {name} holds values that are not finite; fetch the file again")
        return values

    def _read_config(self) -> Qwen2Config:
        architecture = self.metadata.get("general.architecture")
        if architecture != "llama":
            raise ValueError(f"{self.path}: its architecture is {architecture!r}; expected 'llama'")
        if self.metadata.get("split.count", 1) != 1:
            raise ValueError(f"{self.path}: one of several files; merge them by llama.cpp's `llama-gguf-split --merge`")
        for key, value in self.metadata.items():
            if key.startswith("llama.") and key.removeprefix("llama.") not in KEYS:
                raise ValueError(f"{self.path}: {key}={value!r} has no counterpart in a Qwen2 network")
        if GGUF_NAMES["embed_tokens"] not in self._tensors:
            raise ValueError(f"{self.path}: {GGUF_NAMES['embed_tokens']}: missing; expected a whole Llama checkpoint")
        width, heads = self._size("embedding_length"), self._size("attention.head_count")
        head_dim = self._size("attention.key_length", width // heads)
        for key in ("attention.value_length", "rope.dimension_count"):
            if self._size(key, head_dim) != head_dim:
                raise ValueError(f"{self.path}: llama.{key}={self._size(key)}; expected the size of a head, {head_dim}")
        vocab_size = int(self._tensors[GGUF_NAMES["embed_tokens"]].shape[-1])
        if (stated := self._size("vocab_size", vocab_size)) != vocab_size:
            raise ValueError(f"{self.path}: llama.vocab_size={stated}; expected the {vocab_size} rows of the embedding")
        return Qwen2Config(
            vocab_size=vocab_size,
            hidden_size=width,
            intermediate_size=self._size("feed_forward_length"),
            num_layers=self._size("block_count"),
            num_heads=heads,
            num_kv_heads=self._size("attention.head_count_kv", heads),
            head_dim=head_dim,
            rope_theta=self._number("rope.freq_base", 10_000.0),
            rms_norm_eps=self._number("attention.layer_norm_rms_epsilon"),
            tie_word_embeddings=GGUF_NAMES["lm_head"] not in self._tensors,
            max_position_embeddings=self._size("context_length"),
            eos_token_id=self._token_id("eos_token_id", vocab_size),
            bos_token_id=self._token_id("bos_token_id", vocab_size),
        )

    def _size(self, key: str, default: int | None = None) -> int:
        value = self.metadata.get(f"llama.{key}", default)
        if not is_whole(value) or not 1 <= value <= LARGEST:
            raise ValueError(f"{self.path}: llama.{key} is {value!r}; expected a whole number of 1 or more")
        return value

    def _token_id(self, name: str, vocab_size: int) -> int | None:
        """Return the id of a token, None if the file states none."""
        value = self.metadata.get(f"tokenizer.ggml.{name}")
        if value is not None and not (is_whole(value) and 0 <= value < vocab_size):
            raise ValueError(f"{self.path}: tokenizer.ggml.{name} is {value!r}; expected a token id below {vocab_size}")
        return value

    def _number(self, key: str, default: float | None = None) -> float:
        """Return a constant as its shortest decimal: the file stores 1e-5 as the nearest float32."""
        value = self.metadata.get(f"llama.{key}", default)
        if not isinstance(value, float) or not 0 < value < float("inf"):
            raise ValueError(f"{self.path}: llama.{key} is {value!r}; expected a finite number above 0")
        return float(str(np.float32(value)))

    def _check_tensors(self) -> None:
        """Raise ValueError if names or shapes of the tensors are not those of such a network; name the first three."""
        shapes = hf_shapes(self.config)
        expected = {GGUF_NAMES[name]: shapes[TOP_NAMES[name]] for name in top_names(self.config)}
        for name in (name for name in self.config.layer_names if name in GGUF_NAMES):
            for layer in range(self.config.num_layers):
                expected[_layer_name(name, layer)] = shapes[hf_layer_name(self.config, name, layer)]
        actual = {name: tuple(int(size) for size in tensor.shape[::-1]) for name, tensor in self._tensors.items()}
        problems = [f"{name}: missing" for name in expected if name not in actual]
        problems += [f"{name}: not of a Qwen2 network" for name in actual if name not in expected]
        problems += [
            f"{name}: shape {actual[name]}, by the metadata {shape}"
            for name, shape in expected.items()
            if actual.get(name, shape) != shape
        ]
        if problems:
            more = f"; {len(problems) - 3} more" if len(problems) > 3 else ""
            raise ValueError(f"{self.path}: {'; '.join(problems[:3])}{more}")


def halves(weight: Float[np.ndarray, "NH D"], head_dim: int) -> Float[np.ndarray, "NH D"]:
    """Return the rows of q or k with the two rows of each rotary pair half a head apart, as in transformers.

    In GGUF files of this architecture the two rows of a pair are adjacent.
    """
    pairs = weight.reshape(-1, head_dim // 2, 2, weight.shape[1])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def _layer_name(name: str, layer: int) -> str:
    return f"blk.{layer}.{GGUF_NAMES[name]}"
