"""Read the network in a GGUF file as a Qwen2 checkpoint; for a Llama network the biases of q, k and v are zero."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mlagent_jax.model.config_settings import LARGEST
from mlagent_jax.model.families.qwen2 import Qwen2Config
from mlagent_jax.model.hf.layout import TOP_NAMES, hf_layer_name, hf_shapes, top_names
from mlagent_jax.pretrained.gguf_file import GGUFFile
from rollout.storage.checkpoint_files import is_whole

# our parameter -> its tensor in the file, with the prefix `blk.<layer>.` inside a layer
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
BIASES = {"q_bias": "attn_q.bias", "k_bias": "attn_k.bias", "v_bias": "attn_v.bias"}
# All keys that are read under the name of the architecture; Qwen2 has no counterpart of the others (scaled rotary
# frequencies, experts).
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
# Two copies of one matrix differ by the errors of their quantization, relative to its root mean square: less than 0.3
# for two bits per value. Two matrices that were trained apart differ by about 1.4.
MAX_QUANTIZATION_ERROR = 0.5
MAX_ROUNDING_ERROR = 0.01  # of copies with 16 bits or more
SAMPLED_ROWS = 1024


@dataclass(frozen=True)
class Architecture:
    """The way in which GGUF files store the networks of one architecture.

    Attributes:
        names: The tensors by our parameter; a parameter without one is zero.
        has_adjacent_pairs: Whether the two rows of a rotary pair of q and k are adjacent, instead of half a head apart.
    """

    names: Mapping[str, str]
    has_adjacent_pairs: bool = False


ARCHITECTURES = {
    "llama": Architecture(GGUF_NAMES, has_adjacent_pairs=True),
    "qwen2": Architecture({**GGUF_NAMES, **BIASES}),
}


class GGUFNetwork:
    """The configuration and the tensors of the network in one GGUF file."""

    def __init__(self, file: GGUFFile) -> None:
        """Read everything except the values of the tensors.

        Raises:
            ValueError: If the architecture is not supported, or a property of the network has no counterpart in Qwen2.
        """
        self._file = file
        self._name = file.metadata.get("general.architecture")
        if self._name not in ARCHITECTURES:
            known = " or ".join(map(repr, ARCHITECTURES))
            raise ValueError(f"{file.path}: its architecture is {self._name!r}; expected {known}")
        self._architecture = ARCHITECTURES[self._name]
        self.config = self._read_config()
        self._check_tensors()

    def tensors(self) -> Iterator[tuple[str, Float[np.ndarray, "..."]]]:
        """Yield every (name, fp32 tensor) of the checkpoint, in transformers' names and layout.

        The order is that of `hf_shapes`.

        Raises:
            ValueError: If the gguf package cannot dequantize a tensor.
        """
        shapes = hf_shapes(self.config)
        for name in top_names(self.config):
            yield TOP_NAMES[name], self._file.values(self._top_name(name))
        for name in self.config.layer_names:
            for layer in range(self.config.num_layers):
                hf_name = hf_layer_name(self.config, name, layer)
                if name not in self._architecture.names:
                    yield hf_name, np.zeros(shapes[hf_name], np.float32)
                    continue
                values = self._file.values(self._layer_name(name, layer))
                if self._architecture.has_adjacent_pairs and name in ("q_proj", "k_proj"):
                    values = halves(values, self.config.head_dim)
                yield hf_name, values

    def _read_config(self) -> Qwen2Config:
        path, metadata = self._file.path, self._file.metadata
        for key, value in metadata.items():
            if key.startswith(f"{self._name}.") and key.removeprefix(f"{self._name}.") not in KEYS:
                raise ValueError(f"{path}: {key}={value!r} has no counterpart in a Qwen2 network")
        if GGUF_NAMES["embed_tokens"] not in self._file.shapes:
            raise ValueError(f"{path}: {GGUF_NAMES['embed_tokens']}: missing; expected a whole checkpoint")
        width, heads = self._size("embedding_length"), self._size("attention.head_count")
        head_dim = self._size("attention.key_length", width // heads)
        for key in ("attention.value_length", "rope.dimension_count"):
            if self._size(key, head_dim) != head_dim:
                got = self._size(key)
                raise ValueError(f"{path}: {self._name}.{key}={got}; expected the size of a head, {head_dim}")
        vocab_size = self._file.shapes[GGUF_NAMES["embed_tokens"]][0]
        if (stated := self._size("vocab_size", vocab_size)) != vocab_size:
            raise ValueError(
                f"{path}: {self._name}.vocab_size={stated}; expected the {vocab_size} rows of the embedding"
            )
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
            tie_word_embeddings=self._is_tied(),
            max_position_embeddings=self._size("context_length"),
            eos_token_id=self._token_id("eos_token_id", vocab_size),
            bos_token_id=self._token_id("bos_token_id", vocab_size),
        )

    def _is_tied(self) -> bool:
        """Return whether the output head is the embedding: it has no tensor, or one that holds the same matrix."""
        names = [GGUF_NAMES[name] for name in ("embed_tokens", "lm_head")]
        if names[1] not in self._file.shapes:
            return True
        if len({self._file.shapes[name] for name in names}) > 1:
            return False
        step = max(1, self._file.shapes[names[0]][0] // SAMPLED_ROWS)
        embedding, head = (self._file.values(name, step) for name in names)
        limit = MAX_ROUNDING_ERROR if min(map(self._file.bits, names)) >= 16 else MAX_QUANTIZATION_ERROR
        return float(np.linalg.norm(embedding - head)) <= limit * float(np.linalg.norm(embedding))

    def _top_name(self, name: str) -> str:
        """Return the tensor of a parameter outside the layers; of a tied matrix, the copy with more bits per value."""
        copies = [GGUF_NAMES[name]]
        if name == "embed_tokens" and self.config.tie_word_embeddings and GGUF_NAMES["lm_head"] in self._file.shapes:
            copies.append(GGUF_NAMES["lm_head"])
        return max(copies, key=self._file.bits)

    def _size(self, key: str, default: int | None = None) -> int:
        value = self._file.metadata.get(f"{self._name}.{key}", default)
        if not is_whole(value) or not 1 <= value <= LARGEST:
            raise ValueError(
                f"{self._file.path}: {self._name}.{key} is {value!r}; expected a whole number of 1 or more"
            )
        return value

    def _token_id(self, name: str, vocab_size: int) -> int | None:
        """Return the id of a token, None if the file states none."""
        value = self._file.metadata.get(f"tokenizer.ggml.{name}")
        if value is not None and not (is_whole(value) and 0 <= value < vocab_size):
            raise ValueError(
                f"{self._file.path}: tokenizer.ggml.{name} is {value!r}; expected a token id below {vocab_size}"
            )
        return value

    def _number(self, key: str, default: float | None = None) -> float:
        """Return a constant as its shortest decimal: the file stores 1e-5 as the nearest float32."""
        value = self._file.metadata.get(f"{self._name}.{key}", default)
        if not isinstance(value, float) or not 0 < value < float("inf"):
            raise ValueError(f"{self._file.path}: {self._name}.{key} is {value!r}; expected a finite number above 0")
        return float(str(np.float32(value)))

    def _check_tensors(self) -> None:
        """Raise ValueError if names or shapes of the tensors are not those of such a network; name the first three."""
        shapes, names = hf_shapes(self.config), self._architecture.names
        expected = {GGUF_NAMES[name]: shapes[TOP_NAMES[name]] for name in top_names(self.config)}
        for name in (name for name in self.config.layer_names if name in names):
            for layer in range(self.config.num_layers):
                expected[self._layer_name(name, layer)] = shapes[hf_layer_name(self.config, name, layer)]
        actual = self._file.shapes
        spare = {GGUF_NAMES["lm_head"]} if self.config.tie_word_embeddings else set()
        problems = [f"{name}: missing" for name in expected if name not in actual]
        problems += [f"{name}: not of a Qwen2 network" for name in actual if name not in expected and name not in spare]
        problems += [
            f"{name}: shape {actual[name]}, by the metadata {shape}"
            for name, shape in expected.items()
            if actual.get(name, shape) != shape
        ]
        if problems:
            more = f"; {len(problems) - 3} more" if len(problems) > 3 else ""
            raise ValueError(f"{self._file.path}: {'; '.join(problems[:3])}{more}")

    def _layer_name(self, name: str, layer: int) -> str:
        return f"blk.{layer}.{self._architecture.names[name]}"


def halves(weight: Float[np.ndarray, "NH D"], head_dim: int) -> Float[np.ndarray, "NH D"]:
    """Return the rows of q or k, whose rotary pairs are adjacent, with the rows of a pair half a head apart."""
    pairs = weight.reshape(-1, head_dim // 2, 2, weight.shape[1])
    return pairs.swapaxes(1, 2).reshape(weight.shape)
