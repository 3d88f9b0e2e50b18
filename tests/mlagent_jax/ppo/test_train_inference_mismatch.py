"""The accepted mismatch between trainer and server."""

import pytest

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.ppo.train_inference_mismatch import max_mismatch


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([], 2e-3),
        (["server.dtype=bfloat16"], 0.05),
        (["server.dtype=auto"], 0.05),
        (["model.dtype=bfloat16"], 0.05),
        (["server.dtype=bfloat16", "ppo.max_logprob_mismatch=0.3"], 0.3),
    ],
)
def test_accepted_mismatch_is_what_rounding_explains_unless_it_is_stated(settings: list[str], expected: float) -> None:
    config = load_config(None, settings)
    assert max_mismatch(config.ppo.max_logprob_mismatch, config.model.dtype, config.server.dtype) == expected
