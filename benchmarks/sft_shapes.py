"""Define the networks and batches of the fine-tuning benchmarks, and the arithmetic that a step needs."""

from collections.abc import Mapping
from dataclasses import dataclass

from mlagent_jax.model.families.qwen2 import Qwen2Config

# Dense bf16 FLOP/s from the vendor's datasheets, by a part of the device's name.
KNOWN_PEAKS: Mapping[str, float] = {"H100": 989e12, "H200": 989e12}


@dataclass(frozen=True)
class Shape:
    """A network and its batches.

    Attributes:
        network: Sizes of the network.
        batch_size: B, rows of a batch.
        length: T, tokens of a row.
        num_segments: Sequences in a row.
        fill: Lowest and highest share of a row that is not padding.
        turns: Whether only the agent's turns are predicted, about three tokens in seven; otherwise every token is.
    """

    network: Qwen2Config
    batch_size: int
    length: int
    num_segments: int
    fill: tuple[float, float]
    turns: bool


@dataclass(frozen=True)
class Load:
    """The content of the batches of one pass, without padding.

    Attributes:
        tokens: Number of tokens.
        targets: Number of predictions.
        pairs: Number of (query, key) pairs that attention covers.
    """

    tokens: int
    targets: int
    pairs: int


def qwen2_5(hidden_size: int, intermediate_size: int, num_layers: int, num_heads: int) -> Qwen2Config:
    """Return the shape of one of the small Qwen2.5 checkpoints, with a tied head and two key/value heads."""
    return Qwen2Config(151_936, hidden_size, intermediate_size, num_layers, num_heads, 2, hidden_size // num_heads)


# quickstart: configs/quickstart.yaml, with rows filled as in its run. smollm2: SmolLM2-135M.
SHAPES: Mapping[str, Shape] = {
    "quickstart": Shape(Qwen2Config(2304, 256, 768, 2, 4, 2, 64), 3, 1152, 1, (0.76, 1.0), True),
    "smollm2": Shape(Qwen2Config(49_152, 576, 1536, 30, 9, 3, 64, 100_000.0, 1e-5), 2, 512, 2, (0.9, 1.0), True),
    "qwen2.5-0.5b": Shape(qwen2_5(896, 4864, 24, 14), 2, 8192, 6, (0.95, 1.0), False),
    "qwen2.5-1.5b": Shape(qwen2_5(1536, 8960, 28, 12), 2, 8192, 6, (0.95, 1.0), False),
    "tiny": Shape(Qwen2Config(128, 64, 96, 2, 4, 2, 16), 2, 128, 2, (0.8, 1.0), True),
}


def training_flops(network: Qwen2Config, load: Load) -> float:
    """Return the floating-point operations that forward and backward passes over `load` need.

    6 (P tokens + V D targets) + 12 L N H pairs: two operations per parameter and token, a third of them forward. P are
    the parameters of the layers' matrices, and the head counts at predictions. Attention's two products take 4 N H per
    pair and layer forward. One causal sequence of T tokens has T/2 pairs per token, which makes the last term the usual
    6 L T N H per token. Recomputation does not count.
    """
    d, h = network.hidden_size, network.head_dim
    attention = d * h * (2 * network.num_heads + 2 * network.num_kv_heads)
    layer = attention + 3 * d * network.intermediate_size
    products = network.num_layers * layer * load.tokens + network.vocab_size * d * load.targets
    return 6.0 * products + 12.0 * network.num_layers * network.num_heads * h * load.pairs


def utilization(network: Qwen2Config, load: Load, seconds: float, peak: float) -> float:
    """Return the share of `peak` FLOP/s that processing `load` in this many seconds uses."""
    return training_flops(network, load) / seconds / peak


def known_peak(device: str, dtype: str) -> float | None:
    """Return the dense FLOP/s of a device by its datasheet, None if it must be measured."""
    found = [peak for name, peak in KNOWN_PEAKS.items() if name in device and dtype == "bfloat16"]
    return found[0] if found else None
