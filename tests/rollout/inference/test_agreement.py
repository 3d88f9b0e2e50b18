"""Rounding is told from faults by a mean and a percentile, whatever the largest difference is; NaN never passes."""

import asyncio
import math
from collections.abc import Sequence

import numpy as np
import pytest

from rollout.errors import ServerError
from rollout.inference.agreement import LIKELY, MIN_LIKELY, TOLERANCE, Difference, Tolerance, difference, tolerance_for
from rollout.inference.canary import verify_weights
from rollout.inference.canary_file import read_canary, write_canary


class Scores:
    """A scorer whose answers are given."""

    def __init__(self, *answers: Sequence[float]) -> None:
        self.answers = iter(answers)

    async def score(self, token_ids: Sequence[int]) -> list[float]:
        return list(next(self.answers))


def verify(expected: Sequence[Sequence[float]], found: Sequence[Sequence[float]], tolerance: Tolerance) -> Difference:
    prompts = [([0] * (len(each) + 1), each) for each in expected]
    return asyncio.run(verify_weights(Scores(*found), prompts, tolerance))


def test_difference_is_that_of_the_definitions():
    ours = -np.arange(1.0, 201.0)
    found = difference(ours, ours + np.where(np.arange(200) < 3, 0.5, 0.1))
    assert found.mean == pytest.approx((3 * 0.5 + 197 * 0.1) / 200)
    assert (found.p99, found.largest) == (pytest.approx(0.5), pytest.approx(0.5))
    assert difference(ours, ours + np.where(np.arange(200) < 1, 9.0, 0.0)).p99 == 0.0


def test_unlikely_tokens_are_judged_only_if_few_are_likely():
    ours = np.concatenate([np.full(MIN_LIKELY, LIKELY), np.full(100, LIKELY - 0.1)])
    assert difference(ours, ours + np.where(ours < LIKELY, 5.0, 0.01)).largest == pytest.approx(0.01)
    assert difference(ours[1:], ours[1:] + np.where(ours[1:] < LIKELY, 5.0, 0.01)).largest == 5.0
    assert difference(ours, ours - np.where(ours < LIKELY, 0.0, 9.0)).mean == 9.0, "a fault that makes them unlikely"


def test_one_token_far_off_is_rounding_and_many_a_little_off_are_not():
    tolerance, quiet = Tolerance(mean=0.05, p99=0.3), [-1.0] * 299
    assert verify([[*quiet, -1.0]], [[*quiet, -2.4]], tolerance).largest == pytest.approx(1.4)
    with pytest.raises(
        ServerError, match=r"differ by 0\.06 nats per token on average and 0\.06 at the 99th percentile"
    ):
        verify([quiet], [[-1.06] * 299], tolerance)
    few = [-1.0] * 290 + [-1.4] * 9  # the mean is fine
    with pytest.raises(ServerError, match=r"0\.4 at the 99th percentile, expected at most 0\.05 and 0\.3"):
        verify([quiet], [few], tolerance)
    assert verify([quiet[:150], quiet[150:]], [few[:150], few[150:]], Tolerance(0.05, 0.41)).p99 == pytest.approx(0.4)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", ["trainer", "server"])
@pytest.mark.parametrize("rest", [-1.0, -9.0])
def test_a_value_that_is_no_number_is_never_rounding(value: float, side: str, rest: float):
    fine, broken = [-1.0] * 150 + [rest] * 50, [-1.0] * 150 + [rest] * 49 + [value]
    expected, found = (broken, fine) if side == "trainer" else (fine, broken)
    with pytest.raises(ServerError, match="differ by (nan|inf) nats per token"):
        verify([expected], [found], Tolerance(mean=1e9, p99=1e9))
    with pytest.raises(ServerError, match="differ by nan"):
        verify([broken], [broken], Tolerance(mean=1e9, p99=1e9))


def test_coarsest_type_sets_the_tolerance():
    assert tolerance_for("float32") == TOLERANCE["float32"]
    assert tolerance_for("float32", "bfloat16") == tolerance_for("auto") == TOLERANCE["bfloat16"]


def test_stored_canary_is_judged_by_the_types_of_trainer_and_server(tmp_path):
    write_canary(tmp_path, [1, 2], [-1.0], {}, "bfloat16")
    assert read_canary(tmp_path, "float32", 10)[0].tolerance == TOLERANCE["bfloat16"]
    write_canary(tmp_path, [1, 2], [-1.0], {}, "float32")
    assert read_canary(tmp_path, "float32", 10)[0].tolerance == TOLERANCE["float32"]
