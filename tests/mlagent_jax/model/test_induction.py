"""A network that starts with induction heads copies from its context before it is trained."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from flax import nnx

from mlagent_jax.model.families.qwen2 import Qwen2Config
from mlagent_jax.model.induction import write_induction_heads
from mlagent_jax.model.policy import ExportedPolicy
from mlagent_jax.model.transformer import Transformer

SHAPE = Qwen2Config(
    vocab_size=512, hidden_size=256, intermediate_size=64, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=64
)


def copied_share(model: Transformer, seed: int, distance: int = 120) -> float:
    """Return the accuracy of the most likely next token in the second copy of a random sequence."""
    once = np.random.default_rng(seed).integers(0, model.config.vocab_size, (4, distance))
    tokens = np.concatenate([once, once], axis=1)
    predicted = ExportedPolicy(model).logits(tokens).argmax(-1)
    return float((predicted[:, distance + 1 : -1] == tokens[:, distance + 2 :]).mean())


@pytest.mark.parametrize("num_layers", [2, 3])
def test_repeated_random_sequences_are_copied_without_training(
    make_model: Callable[..., Transformer], num_layers: int
) -> None:
    model = make_model(replace(SHAPE, num_layers=num_layers), seed=num_layers)
    assert copied_share(model, seed=0) < 0.1
    write_induction_heads(model, seed=num_layers)
    assert copied_share(model, seed=0) > 0.95


def test_the_start_is_a_function_of_the_seed(make_model: Callable[..., Transformer]) -> None:
    def start(seed: int) -> np.ndarray:
        model = make_model(SHAPE)
        write_induction_heads(model, seed)
        return np.asarray(model.embed_tokens[...])

    np.testing.assert_array_equal(start(0), start(0))
    assert (start(0) != start(1)).any()


@pytest.mark.parametrize(
    "change",
    [
        {"num_layers": 1},
        {"num_kv_heads": 1},
        {"num_kv_heads": 4},
        {"hidden_size": 32, "head_dim": 8},
    ],
)
def test_network_too_small_for_the_circuit_is_refused(change: dict[str, int]) -> None:
    model = nnx.eval_shape(lambda: Transformer(replace(SHAPE, **change), nnx.Rngs(0)))
    with pytest.raises(ValueError, match="an induction start needs .* or set model.induction_init=false"):
        write_induction_heads(model, 0)
