"""The accepted mismatch between trainer and server."""

import pytest

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.ppo.train_inference_mismatch import max_mismatch
from rollout.inference.agreement import TOLERANCE, Tolerance


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([], TOLERANCE["float32"]),
        (["server.dtype=bfloat16"], TOLERANCE["bfloat16"]),
        (["server.dtype=auto"], TOLERANCE["bfloat16"]),
        (["model.dtype=bfloat16"], TOLERANCE["bfloat16"]),
        (["server.dtype=bfloat16", "ppo.max_logprob_mismatch=0.1"], Tolerance(mean=0.1, p99=0.6)),
    ],
)
def test_accepted_mismatch_is_what_rounding_explains_unless_it_is_stated(
    settings: list[str], expected: Tolerance
) -> None:
    config = load_config(None, settings)
    assert max_mismatch(config.ppo.max_logprob_mismatch, config.model.dtype, config.server.dtype) == expected
