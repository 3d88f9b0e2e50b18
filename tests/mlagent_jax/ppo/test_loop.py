"""The loop of PPO: what ends it."""

import math

import pytest

from mlagent_jax.ppo.loop import require_finite


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_training(value: float) -> None:
    require_finite({"ppo/policy_loss": 0.1, "sampler/importance_mean": value}, 3)  # the mean of nothing is no fault
    with pytest.raises(FloatingPointError, match=f"ppo/value_loss became {value} in update 3; lower ppo.learning_rate"):
        require_finite({"ppo/policy_loss": 0.1, "ppo/value_loss": value}, 3)
