"""Qwen2 and Qwen2.5: a bias on queries, keys and values; the heads divide the width of the residual stream."""

from dataclasses import dataclass

from mlagent_jax.model.config import LAYER_NAMES, TransformerConfig


@dataclass(frozen=True)
class Qwen2Config(TransformerConfig):
    """The configuration of a Qwen2 or Qwen2.5 checkpoint, whose keys are those that all families share."""

    model_type = "qwen2"
    architecture = "Qwen2ForCausalLM"
    layer_names = {
        **LAYER_NAMES,
        "q_bias": ("self_attn.q_proj.bias", "NH"),
        "k_bias": ("self_attn.k_proj.bias", "KH"),
        "v_bias": ("self_attn.v_proj.bias", "KH"),
    }
    supported = {"attention_bias": ((True, None), "queries, keys and values of Qwen2 have a bias; remove it")}
    sharding_rules = {
        "q_bias": (None, "tensor", None),
        "k_bias": (None, "tensor", None),
        "v_bias": (None, "tensor", None),
    }


FAMILY = Qwen2Config
