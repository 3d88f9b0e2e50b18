"""Responses to the states of one trajectory share its history, and every prediction still sees exactly its own past."""

import random
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
import pytest

from mlagent_jax.model.attention import visible
from mlagent_jax.model.packed_batch import BatchShape
from mlagent_jax.ppo.batch import (
    Packed,
    by_prediction,
    by_response,
    pack_samples,
    stack_packed,
)
from rollout.sampling.experience import Experience

LENGTH = 32


@pytest.fixture
def experiences(make_experience: Callable[..., Experience]) -> list[Experience]:
    """Three trajectories: states at several depths, several responses each, in no order."""
    rng = random.Random(0)
    found = []
    for trajectory in "abc":
        history = [rng.randrange(64) for _ in range(12)]
        for depth in (3, 7, 12):
            for _ in range(2):
                response = [rng.randrange(64) for _ in range(rng.randint(1, 4))]
                found.append(make_experience(history[:depth], response, trajectory_id=trajectory))
    rng.shuffle(found)
    return found


def assert_sees_its_own_past(packed: Packed, experiences: Sequence[Experience], length: int) -> None:
    """Checks, for every token of every response, what is predicted from where, and all that this place sees."""
    micro_batches = stack_packed(packed, BatchShape(length, length // 2), 2)
    index = jnp.arange(length)
    masks = [mask for r in micro_batches for mask in np.asarray(visible(jnp.asarray(r.layout.ends), index, index))]
    rows = [
        [field[i] for field in (r.tokens, r.positions, r.sources, r.targets)] for r in micro_batches for i in (0, 1)
    ]
    for place, experience in zip(packed.places, experiences, strict=True):
        tokens, positions, sources, targets = rows[place.row]
        past = list(experience.prompt_ids)
        assert targets[place.predictions].tolist() == list(experience.response_ids)
        for source, target in zip(sources[place.predictions], experience.response_ids, strict=True):
            seen = np.flatnonzero(masks[place.row][source])
            assert tokens[seen].tolist() == past
            assert positions[seen].tolist() == list(range(len(past)))
            past.append(target)


def test_every_response_sees_its_own_state_and_itself(experiences: list[Experience]) -> None:
    packed = pack_samples(experiences, BatchShape(64, 32))
    assert len(packed.rows) == 2  # two of the three trajectories have room in one row
    for row in packed.rows:  # a history stands once, whatever the number of states and responses
        found = [e for e, place in zip(experiences, packed.places, strict=True) if packed.rows[place.row] is row]
        histories = 12 * len({e.trajectory_id for e in found})
        assert len(row.tokens) == histories + sum(len(e.response_ids) for e in found)
    assert_sees_its_own_past(packed, experiences, 64)


def test_what_does_not_fit_a_row_goes_into_another_with_its_history(experiences: list[Experience]) -> None:
    packed = pack_samples(experiences, BatchShape(20, 10))
    assert len(packed.rows) > 3
    assert all(len(row.tokens) <= 20 and len(row.targets) <= 10 for row in packed.rows)
    assert_sees_its_own_past(packed, experiences, 20)


def test_state_and_response_longer_than_a_row_are_refused(make_experience: Callable[..., Experience]) -> None:
    with pytest.raises(ValueError, match="a state of 30 tokens and its response of 3 do not fit a row of 32 with 32"):
        pack_samples([make_experience([1] * 30, [2, 3, 4])], BatchShape(LENGTH, LENGTH))


def test_values_by_response_and_by_prediction_are_inverse(experiences: list[Experience]) -> None:
    packed = pack_samples(experiences, BatchShape(20, 10))
    rows = stack_packed(packed, BatchShape(20, 10), 2)
    rng = np.random.default_rng(0)
    values = np.zeros((len(experiences), 4), np.float32)
    for value, experience in zip(values, experiences, strict=True):
        value[: len(experience.response_ids)] = rng.standard_normal(len(experience.response_ids))
    placed = by_prediction(packed, values, rows)
    assert [part.shape for part in placed] == [micro.targets.shape for micro in rows]
    np.testing.assert_array_equal(by_response(packed, placed, 4), values)
    weights = np.concatenate([micro.weights for micro in rows])
    table = np.concatenate(placed)
    assert weights.sum() == sum(len(e.response_ids) for e in experiences)
    assert not table[weights == 0].any() and (table[weights > 0] != 0).all()


def test_last_micro_batch_is_filled_up_with_empty_rows(experiences: list[Experience]) -> None:
    packed = pack_samples(experiences, BatchShape(64, 32))
    rows = stack_packed(packed, BatchShape(64, 32), 3)
    assert [micro.tokens.shape for micro in rows] == [(3, 64)]
    assert rows[0].weights[1].any() and not rows[0].tokens[2].any() and not rows[0].weights[2].any()
