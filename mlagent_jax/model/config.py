"""The sizes of a decoder-only transformer, and the properties of the checkpoints of a model family.

A family is a subclass of `TransformerConfig`, in its own file in `families/`. Nothing here imports JAX.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlagent_jax.model.config_settings import MOST_LAYERS, Settings

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
# The format in which `config.json` is written, which has `dtype` and `rope_parameters`. If a file states no version,
# transformers takes a large tokenizer beside it for one of Mistral's that split text wrongly, and warns.
TRANSFORMERS_VERSION = "5.0.0"


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
        supported: The keys of `config.json` that only this family has and that it supports with some values, as
            `SUPPORTED` lists those of every family.
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
        eos_token_id: The token that ends a response, or several in their order; None if the checkpoint states none.
        bos_token_id: The token id that stands for an empty context; None if the checkpoint states none.
    """

    model_type: ClassVar[str]
    architecture: ClassVar[str]
    layer_names: ClassVar[Mapping[str, tuple[str, str]]] = LAYER_NAMES
    supported: ClassVar[Mapping[str, tuple[tuple[object, ...], str]]] = {}
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
    eos_token_id: int | tuple[int, ...] | None = None
    bos_token_id: int | None = None

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads={self.num_heads} is not a multiple of num_kv_heads={self.num_kv_heads}")
        if self.head_dim % 2 or not self.head_dim:
            raise ValueError(f"head_dim={self.head_dim} is odd; rotary embeddings need an even one")

    @property
    def letters(self) -> dict[str, int]:
        """The sizes of the dims of a layer's tensors, by the letters of `LAYER_NAMES`."""
        return {
            **{"D": self.hidden_size, "F": self.intermediate_size, "H": self.head_dim},
            **{"N": self.num_heads, "K": self.num_kv_heads},
        }

    @classmethod
    def from_hf(cls, settings: Settings) -> "TransformerConfig":
        """Return the configuration that the settings of a `config.json` state.

        Every key that could change the network is read here or refused. A family extends this with its own keys.

        Raises:
            ValueError: If a size is missing, or a setting is unknown or not supported.
        """
        settings.require_architecture(cls.architecture)
        vocab_size, hidden_size = settings.size("vocab_size"), settings.size("hidden_size")
        num_layers = settings.size("num_hidden_layers", MOST_LAYERS)
        num_heads = settings.size("num_attention_heads")
        settings.require_full_attention(num_layers)
        sizes = {
            "vocab_size": vocab_size,
            "hidden_size": hidden_size,
            "intermediate_size": settings.size("intermediate_size"),
            "num_layers": num_layers,
            "num_heads": num_heads,
            "num_kv_heads": settings.size("num_key_value_heads"),
            "head_dim": settings.optional_size("head_dim") or hidden_size // num_heads,
            "rope_theta": settings.rope_theta(),
            "rms_norm_eps": settings.number("rms_norm_eps", 1e-6),
            "tie_word_embeddings": settings.flag("tie_word_embeddings", False),
            "max_position_embeddings": settings.size("max_position_embeddings"),
            "initializer_range": settings.number("initializer_range", 0.02, allow_zero=True),
            "eos_token_id": settings.token_ids("eos_token_id", vocab_size),
            "bos_token_id": settings.token_id("bos_token_id", vocab_size),
        }
        settings.finish(cls.supported)
        try:
            return cls(**sizes)
        except ValueError as error:
            raise ValueError(f"{settings.path}: {error}; use another checkpoint") from None

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
            "eos_token_id": list(self.eos_token_id) if isinstance(self.eos_token_id, tuple) else self.eos_token_id,
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
            "transformers_version": TRANSFORMERS_VERSION,
            "use_cache": True,
            "use_sliding_window": False,
            "vocab_size": self.vocab_size,
        }


@dataclass(frozen=True)
class Adapter:
    """The shape of a low-rank adapter; see `mlagent_jax.model.adapter`.

    Attributes:
        rank: The rank of every product A B.
        alpha: The products are multiplied by alpha / rank.
        matrices: Our names of the matrices that have one.
    """

    rank: int
    alpha: float
    matrices: tuple[str, ...]

    @property
    def scale(self) -> float:
        """The factor of every product A B."""
        return self.alpha / self.rank
