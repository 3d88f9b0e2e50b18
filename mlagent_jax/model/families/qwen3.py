"""Qwen3, dense: no bias, an RMSNorm on the queries and keys of each head, and an explicit size of a head."""

from dataclasses import dataclass
from typing import Any

from mlagent_jax.model.config import LAYER_NAMES, TransformerConfig
from mlagent_jax.model.config_settings import Settings


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
    supported = {"attention_bias": ((False,), "no released Qwen3 checkpoint has it; use another checkpoint")}
    sharding_rules = {"q_norm": (None, None), "k_norm": (None, None)}

    @classmethod
    def from_hf(cls, settings: Settings) -> "TransformerConfig":
        """Return the configuration that the settings of a `config.json` state.

        Raises:
            ValueError: If a size is missing, or a setting is unknown or not supported.
        """
        settings.require_given("head_dim")  # transformers assumes 128, not hidden_size / heads
        return super().from_hf(settings)

    def to_hf(self, dtype: str) -> dict[str, Any]:
        """Return the `config.json` content from which transformers and vLLM build this network."""
        return super().to_hf(dtype) | {
            "attention_bias": False,
            "max_window_layers": self.num_layers,  # has no effect without a sliding window
            "rope_scaling": None,
            "sliding_window": None,
        }


FAMILY = Qwen3Config
