"""Responses of an episode side by side, and apart again."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mlagent_jax.ppo.advantage import generalized_advantages
from mlagent_jax.ppo.episode_concat import EpisodeConcat, episodes_of
from rollout.sampling.experience import Experience


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[list[int]], np.ndarray, np.ndarray]:
    """Returns the responses of each episode, the mask of all, and a table of them, 0 on padding."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    order = draw(st.permutations(range(sum(sizes))))
    ends = np.cumsum([0, *sizes])
    chains = [list(order[a:b]) for a, b in zip(ends, ends[1:], strict=False)]
    lengths = draw(st.lists(st.integers(1, 4), min_size=len(order), max_size=len(order)))
    mask = (np.arange(4) < np.array(lengths)[:, None]).astype(np.float32)
    table = np.random.default_rng(draw(st.integers(0, 9))).standard_normal(mask.shape).astype(np.float32)
    return chains, mask, table * mask


@settings(max_examples=20)
@given(tables())
def test_what_is_joined_comes_apart_again(case: tuple[list[list[int]], np.ndarray, np.ndarray]) -> None:
    chains, mask, table = case
    found = EpisodeConcat(chains, mask)
    joined = np.asarray(found.join(table))
    for chain, row in zip(chains, joined, strict=True):
        expected = np.concatenate([table[i][mask[i] > 0] for i in chain])
        np.testing.assert_array_equal(row[: len(expected)], expected)
        assert not row[len(expected) :].any()
    np.testing.assert_array_equal(found.split(found.join(table)), table)


@settings(max_examples=20)
@given(tables())
def test_responses_that_are_their_own_episodes_stay_as_they_are(
    case: tuple[list[list[int]], np.ndarray, np.ndarray],
) -> None:
    _, mask, table = case
    np.testing.assert_array_equal(EpisodeConcat([[i] for i in range(len(mask))], mask).join(table), table)


@settings(max_examples=20)
@given(tables())
def test_advantages_of_joined_rows_are_those_of_one_long_response(
    case: tuple[list[list[int]], np.ndarray, np.ndarray],
) -> None:
    chains, mask, rewards = case
    values = rewards[::-1] * mask
    found = EpisodeConcat(chains, mask)
    joined = [found.join(each) for each in (rewards, values, mask)]
    advantages = np.asarray(found.split(generalized_advantages(*joined, 0.9, 0.8)))
    for chain in chains:
        r, v = (np.concatenate([each[i][mask[i] > 0] for i in chain]) for each in (rewards, values))
        expected, later = np.zeros(len(r)), 0.0
        for t in reversed(range(len(r))):
            following = v[t + 1] if t + 1 < len(v) else 0.0
            later = expected[t] = r[t] + 0.9 * following - v[t] + 0.9 * 0.8 * later
        np.testing.assert_allclose(
            np.concatenate([advantages[i][mask[i] > 0] for i in chain]), expected, rtol=1e-4, atol=1e-5
        )


def test_actions_of_an_episode_stand_in_order(make_experience: Callable[..., Experience]) -> None:
    actions = [("b", 0, 1), ("a", 0, 0), ("b", 0, 0), ("a", 0, 2), ("a", 1, 1), ("a", 0, 1), ("a", 1, 0)]
    experiences = [
        replace(make_experience([1], [2], trajectory_id=name), episode=episode, depth=depth)
        for name, episode, depth in actions
    ]
    assert episodes_of(experiences) == [[2, 0], [1, 5, 3], [6, 4]]
