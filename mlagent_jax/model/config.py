"""The shape of a Qwen2.5 network, read from and written to a Hugging Face `config.json`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
)


@dataclass(frozen=True)
class Qwen2Config:
    """Sizes and constants of one network; letters are those of the array annotations.

    Attributes:
        vocab_size: V, rows of the embedding.
        hidden_size: D.
        intermediate_size: F, width of the feed-forward layer.
        num_layers: L.
        num_heads: N, query heads.
        num_kv_heads: K, key/value heads.
        head_dim: H.
        rope_theta: base of the rotary frequencies.
        rms_norm_eps: added to the mean square in every norm.
        tie_word_embeddings: whether the head is the embedding, transposed.
        max_position_embeddings: longest context, in tokens.
        initializer_range: standard deviation of random initial weights.
        eos_token_id: the token that ends a response.
        bos_token_id: the token id that stands for an empty context.
    """

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


def read_config(folder: Path) -> Qwen2Config:
    """Return the shape of the checkpoint in `folder`.

    Raises:
        FileNotFoundError: if there is no `config.json`.
        ValueError: if it is not a Qwen2 model, or uses a feature this network does not have.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a Hugging Face model directory with config.json")
    try:
        raw = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); fetch it again") from None
    if raw.get("model_type") != "qwen2":
        raise ValueError(
            f"{path}: model_type is {raw.get('model_type')!r}; only 'qwen2' (Qwen2 and Qwen2.5) is supported"
        )
    if raw.get("use_sliding_window"):
        raise ValueError(f"{path}: use_sliding_window=true is not supported; set it to false for full attention")
    for name in SIZES:
        if not isinstance(raw.get(name), int):
            raise ValueError(f"{path}: {name} is {raw.get(name)!r}; expected a whole number, as Qwen2.5 has")
    heads, width = raw["num_attention_heads"], raw["hidden_size"]
    return Qwen2Config(
        vocab_size=raw["vocab_size"],
        hidden_size=width,
        intermediate_size=raw["intermediate_size"],
        num_layers=raw["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=raw["num_key_value_heads"],
        head_dim=raw.get("head_dim") or width // heads,
        rope_theta=_rope_theta(raw, path),
        rms_norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
        tie_word_embeddings=raw.get("tie_word_embeddings", False),
        max_position_embeddings=raw["max_position_embeddings"],
        initializer_range=raw.get("initializer_range", 0.02),
        eos_token_id=_first(raw.get("eos_token_id"), 2),
        bos_token_id=_first(raw.get("bos_token_id"), 0),
    )


def _rope_theta(raw: dict[str, Any], path: Path) -> float:
    """Return the rotary base from either place transformers has kept it in; no default, a wrong one is silent."""
    parameters = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    kind = parameters.get("rope_type", "default")
    if kind != "default":
        raise ValueError(f"{path}: rope_type {kind!r} is not supported; expected 'default'")
    theta = parameters.get("rope_theta", raw.get("rope_theta"))
    if theta is None:
        raise ValueError(f"{path}: neither rope_parameters.rope_theta nor rope_theta is given")
    return float(theta)


def _first(value: int | list[int] | None, default: int) -> int:
    if isinstance(value, list):
        return value[0]
    return default if value is None else value


def hf_config(config: Qwen2Config, dtype: str) -> dict[str, Any]:
    """Return the `config.json` content that transformers and vLLM read back as this network."""
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "attention_dropout": 0.0,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "dtype": dtype,
        "torch_dtype": dtype,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "initializer_range": config.initializer_range,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_position_embeddings,
        "num_attention_heads": config.num_heads,
        "num_hidden_layers": config.num_layers,
        "num_key_value_heads": config.num_kv_heads,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_theta": config.rope_theta, "rope_type": "default"},
        "tie_word_embeddings": config.tie_word_embeddings,
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": config.vocab_size,
    }
