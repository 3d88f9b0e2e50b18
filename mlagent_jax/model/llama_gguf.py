"""A Llama checkpoint in a GGUF file, read as the Qwen2 network it is: one whose biases of q, k and v are zero."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, ReaderTensor, dequantize
from jaxtyping import Float

from mlagent_jax.model.config import Qwen2Config
from mlagent_jax.model.hf.layout import LAYER_NAMES, TOP_NAMES, hf_layer_name, hf_shapes, top_names

# our parameter -> its tensor in the file, those of a layer behind `blk.<layer>.`; a bias has none
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
# All that is read under `llama.`; whatever else stands there (scaled rotary frequencies, experts) Qwen2 does not have.
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
    """The config, the tensors and the metadata of one file."""

    def __init__(self, path: Path) -> None:
        """Read everything but the tensors' values.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is no GGUF file, or its network is not a Qwen2 one; says what does not fit.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path}: no such file; expected a GGUF file")
        try:
            reader = GGUFReader(self.path)
            self.metadata: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items()}
        except Exception as error:  # the library trips over a damaged file in many ways
            raise ValueError(f"{self.path}: not a readable GGUF file ({error}); fetch it again") from None
        self._found: dict[str, ReaderTensor] = {tensor.name: tensor for tensor in reader.tensors}
        self.config = self._read_config()
        self._check_tensors()

    def tensors(self) -> Iterator[tuple[str, Float[np.ndarray, "..."]]]:
        """Yield every (name, fp32 tensor) of the checkpoint, in transformers' names and layout, as `hf_shapes` orders.

        Raises:
            ValueError: if a tensor is quantised in a way that cannot be undone here.
        """
        shapes = hf_shapes(self.config)
        for name in top_names(self.config):
            yield TOP_NAMES[name], self._values(GGUF_NAMES[name])
        for name in LAYER_NAMES:
            for layer in range(self.config.num_layers):
                hf_name = hf_layer_name(name, layer)
                if name not in GGUF_NAMES:
                    yield hf_name, np.zeros(shapes[hf_name], np.float32)
                elif name in ("q_proj", "k_proj"):
                    yield hf_name, halves(self._values(_layer_name(name, layer)), self.config.head_dim)
                else:
                    yield hf_name, self._values(_layer_name(name, layer))

    def _values(self, name: str) -> Float[np.ndarray, "..."]:
        tensor = self._found[name]
        try:
            return dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError:
            raise ValueError(f"{self.path}: {name} is of type {tensor.tensor_type.name}, not known to gguf") from None

    def _read_config(self) -> Qwen2Config:
        architecture = self.metadata.get("general.architecture")
        if architecture != "llama":
            raise ValueError(f"{self.path}: its architecture is {architecture!r}; expected 'llama'")
        for key, value in self.metadata.items():
            if key.startswith("llama.") and key.removeprefix("llama.") not in KEYS:
                raise ValueError(f"{self.path}: {key}={value!r} has no counterpart in a Qwen2 network")
        if GGUF_NAMES["embed_tokens"] not in self._found:
            raise ValueError(f"{self.path}: {GGUF_NAMES['embed_tokens']}: missing; expected a whole Llama checkpoint")
        width, heads = self._size("embedding_length"), self._size("attention.head_count")
        head_dim = self._size("attention.key_length", width // heads)
        for key in ("attention.value_length", "rope.dimension_count"):
            if self._size(key, head_dim) != head_dim:
                raise ValueError(f"{self.path}: llama.{key}={self._size(key)}; expected the size of a head, {head_dim}")
        return Qwen2Config(
            vocab_size=int(self._found[GGUF_NAMES["embed_tokens"]].shape[-1]),
            hidden_size=width,
            intermediate_size=self._size("feed_forward_length"),
            num_layers=self._size("block_count"),
            num_heads=heads,
            num_kv_heads=self._size("attention.head_count_kv", heads),
            head_dim=head_dim,
            rope_theta=self._number("rope.freq_base", 10_000.0),
            rms_norm_eps=self._number("attention.layer_norm_rms_epsilon"),
            tie_word_embeddings=GGUF_NAMES["lm_head"] not in self._found,
            max_position_embeddings=self._size("context_length"),
            eos_token_id=self.metadata.get("tokenizer.ggml.eos_token_id", 2),
            bos_token_id=self.metadata.get("tokenizer.ggml.bos_token_id", 0),
        )

    def _size(self, key: str, default: int | None = None) -> int:
        value = self.metadata.get(f"llama.{key}", default)
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{self.path}: llama.{key} is {value!r}; expected a whole number of 1 or more")
        return value

    def _number(self, key: str, default: float | None = None) -> float:
        """Return a constant as the decimal it was written as: the file has 1e-5 as the float32 nearest to it."""
        value = self.metadata.get(f"llama.{key}", default)
        if not isinstance(value, float):
            raise ValueError(f"{self.path}: llama.{key} is {value!r}; expected a number")
        return float(str(np.float32(value)))

    def _check_tensors(self) -> None:
        """Raise ValueError, naming them, unless the tensors are those of such a network, by name and shape."""
        shapes = hf_shapes(self.config)
        wanted = {GGUF_NAMES[name]: shapes[TOP_NAMES[name]] for name in top_names(self.config)}
        for name in (name for name in LAYER_NAMES if name in GGUF_NAMES):
            for layer in range(self.config.num_layers):
                wanted[_layer_name(name, layer)] = shapes[hf_layer_name(name, layer)]
        found = {name: tuple(int(size) for size in tensor.shape[::-1]) for name, tensor in self._found.items()}
        problems = [f"{name}: missing" for name in wanted if name not in found]
        problems += [f"{name}: not of a Qwen2 network" for name in found if name not in wanted]
        problems += [
            f"{name}: shape {found[name]}, by the metadata {shape}"
            for name, shape in wanted.items()
            if found.get(name, shape) != shape
        ]
        if problems:
            more = f"; {len(problems) - 3} more" if len(problems) > 3 else ""
            raise ValueError(f"{self.path}: {'; '.join(problems[:3])}{more}")


def halves(weight: Float[np.ndarray, "NH D"], head_dim: int) -> Float[np.ndarray, "NH D"]:
    """Return the rows of q or k with each head's rotary pairs half a head apart, as transformers rotates them.

    GGUF files of this architecture have the two rows of a pair next to each other.
    """
    pairs = weight.reshape(-1, head_dim // 2, 2, weight.shape[1])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def _layer_name(name: str, layer: int) -> str:
    return f"blk.{layer}.{GGUF_NAMES[name]}"
