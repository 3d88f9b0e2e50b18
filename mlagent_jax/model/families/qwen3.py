"""Qwen3, dense: no bias, an RMSNorm on the queries and keys of each head, and an explicit size of a head."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlagent_jax.model.config import LAYER_NAMES, TransformerConfig


@dataclass(frozen=True)
class Qwen3Config(TransformerConfig):
    """The configuration of a dense Qwen3 checkpoint; those with experts (`qwen3_moe`) are another family."""

    model_type = "qwen3"
    architecture = "Qwen3ForCausalLM"
    layer_names = {
        **LAYER_NAMES,
        "q_norm": ("self_attn.q_norm.weight", "H"),
        "k_norm": ("self_attn.k_norm.weight", "H"),
    }
    sharding_rules = {"q_norm": (None, None), "k_norm": (None, None)}

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any], path: Path) -> "TransformerConfig":
        """Return the configuration that the content of a `config.json` states.

        Raises:
            ValueError: If a size is missing or a setting is not supported.
        """
        if raw.get("attention_bias"):
            raise ValueError(f"{path}: attention_bias=true is not supported; no released Qwen3 checkpoint has it")
        if not isinstance(raw.get("head_dim"), int):  # transformers assumes 128, not hidden_size / heads
            raise ValueError(f"{path}: head_dim is {raw.get('head_dim')!r}; expected a whole number")
        return super().from_hf(raw, path)

    def to_hf(self, dtype: str) -> dict[str, Any]:
        """Return the `config.json` content from which transformers and vLLM build this network."""
        return super().to_hf(dtype) | {
            "attention_bias": False,
            "max_window_layers": self.num_layers,  # has no effect without a sliding window
            "rope_scaling": None,
            "sliding_window": None,
        }


FAMILY = Qwen3Config
