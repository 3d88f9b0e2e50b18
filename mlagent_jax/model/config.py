"""The sizes of a decoder-only transformer, and the properties of the checkpoints of a model family.

A family is a subclass of `TransformerConfig`, in its own file in `families/`. Nothing here imports JAX.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
)

# Stacked parameter -> its name inside a layer of the checkpoint, and the dims of that tensor in the letters of
# `TransformerConfig`. Adjacent letters are one flattened dim. Our parameter has the dims in reverse order, one dim per
# letter: "NH,D" is our (D, N, H).
LAYER_NAMES: Mapping[str, tuple[str, str]] = {
    "input_layernorm": ("input_layernorm.weight", "D"),
    "q_proj": ("self_attn.q_proj.weight", "NH,D"),
    "k_proj": ("self_attn.k_proj.weight", "KH,D"),
    "v_proj": ("self_attn.v_proj.weight", "KH,D"),
    "o_proj": ("self_attn.o_proj.weight", "D,NH"),
    "post_attention_layernorm": ("post_attention_layernorm.weight", "D"),
    "gate_proj": ("mlp.gate_proj.weight", "F,D"),
    "up_proj": ("mlp.up_proj.weight", "F,D"),
    "down_proj": ("mlp.down_proj.weight", "D,F"),
}
ROPE_KEYS = {"rope_type", "type", "rope_theta"}  # keys of rope_parameters or rope_scaling without scaled frequencies


@dataclass(frozen=True)
class TransformerConfig:
    """The sizes and constants of one network; the letters are those of the array annotations.

    Class attributes state what all networks of a family share.

    Attributes:
        model_type: The family's name in `config.json`, and the name of its file in `families/`.
        architecture: The name of its class in transformers.
        layer_names: The checkpoint's tensors of one layer, as `LAYER_NAMES` lists those of every family. With `q_bias`
            among them, queries, keys and values have a bias; with `q_norm`, the queries and keys of each head pass
            through an RMSNorm over H before the rotation.
        sharding_rules: The mesh axis of each dim of the parameters that only some families have; L comes first.
        vocab_size: V, the rows of the embedding.
        hidden_size: D.
        intermediate_size: F, the width of the feed-forward layer.
        num_layers: L.
        num_heads: N, query heads.
        num_kv_heads: K, key/value heads.
        head_dim: H; D / N in some families, independent of it in others.
        rope_theta: The base of the rotary frequencies.
        rms_norm_eps: The constant that every norm adds to the mean square.
        tie_word_embeddings: Whether the output head is the embedding, transposed.
        max_position_embeddings: The longest context, in tokens.
        initializer_range: The standard deviation of random initial weights.
        eos_token_id: The token that ends a response.
        bos_token_id: The token id that stands for an empty context.
    """

    model_type: ClassVar[str]
    architecture: ClassVar[str]
    layer_names: ClassVar[Mapping[str, tuple[str, str]]] = LAYER_NAMES
    sharding_rules: ClassVar[Mapping[str, tuple[str | None, ...]]] = {}

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope_theta: float = 1_000_000.0
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True
    max_position_embeddings: int = 32_768
    initializer_range: float = 0.02
    eos_token_id: int = 2
    bos_token_id: int = 0

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads={self.num_heads} is not a multiple of num_kv_heads={self.num_kv_heads}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} is odd; rotary embeddings need an even one")

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any], path: Path) -> "TransformerConfig":
        """Return the configuration that the content of a `config.json` states.

        A family extends this with its own keys, and refuses those whose effect the network does not compute.

        Args:
            raw: The content of the file.
            path: The file, for error messages.

        Raises:
            ValueError: If a size is missing or a setting is not supported.
        """
        for name in SIZES:
            if not isinstance(raw.get(name), int):
                raise ValueError(f"{path}: {name} is {raw.get(name)!r}; expected a whole number")
        if raw.get("hidden_act", "silu") != "silu":
            raise ValueError(f"{path}: hidden_act {raw['hidden_act']!r} is not supported; expected 'silu'")
        if raw.get("use_sliding_window"):
            raise ValueError(f"{path}: use_sliding_window=true is not supported; set it to false for full attention")
        other = {kind for kind in raw.get("layer_types") or () if kind != "full_attention"}
        if other:
            raise ValueError(f"{path}: layer_types {sorted(other)} are not supported; expected 'full_attention' only")
        return cls(
            vocab_size=raw["vocab_size"],
            hidden_size=raw["hidden_size"],
            intermediate_size=raw["intermediate_size"],
            num_layers=raw["num_hidden_layers"],
            num_heads=raw["num_attention_heads"],
            num_kv_heads=raw["num_key_value_heads"],
            head_dim=raw.get("head_dim") or raw["hidden_size"] // raw["num_attention_heads"],
            rope_theta=_rope_theta(raw, path),
            rms_norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
            tie_word_embeddings=raw.get("tie_word_embeddings", False),
            max_position_embeddings=raw["max_position_embeddings"],
            initializer_range=raw.get("initializer_range", 0.02),
            eos_token_id=_first(raw.get("eos_token_id"), 2),
            bos_token_id=_first(raw.get("bos_token_id"), 0),
        )

    def to_hf(self, dtype: str) -> dict[str, Any]:
        """Return the `config.json` content from which transformers and vLLM build this network.

        Args:
            dtype: The type of the saved tensors, such as `bfloat16`.
        """
        return {
            "architectures": [self.architecture],
            "model_type": self.model_type,
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "dtype": dtype,
            "torch_dtype": dtype,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": self.initializer_range,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "num_attention_heads": self.num_heads,
            "num_hidden_layers": self.num_layers,
            "num_key_value_heads": self.num_kv_heads,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_parameters": {"rope_theta": self.rope_theta, "rope_type": "default"},
            "tie_word_embeddings": self.tie_word_embeddings,
            "use_cache": True,
            "use_sliding_window": False,
            "vocab_size": self.vocab_size,
        }


def _rope_theta(raw: Mapping[str, Any], path: Path) -> float:
    """Return the rotary base from either place where transformers keeps it.

    transformers 5 writes `rope_parameters`, earlier versions `rope_theta` and `rope_scaling`. There is no default: a
    wrong base is a silent error.
    """
    theta = raw.get("rope_theta")
    for key in ("rope_scaling", "rope_parameters"):
        parameters = raw.get(key) or {}
        kind = parameters.get("rope_type", parameters.get("type", "default"))
        if kind != "default":
            raise ValueError(f"{path}: rope_type {kind!r} is not supported; expected 'default'")
        if unknown := sorted(set(parameters) - ROPE_KEYS):
            raise ValueError(f"{path}: {key}.{unknown[0]}={parameters[unknown[0]]!r} is not supported; remove it")
        theta = parameters.get("rope_theta", theta)
    if theta is None:
        raise ValueError(f"{path}: neither rope_parameters.rope_theta nor rope_theta is given; state one")
    return float(theta)


def _first(value: int | list[int] | None, default: int) -> int:
    if isinstance(value, list):
        return value[0]
    return default if value is None else value
