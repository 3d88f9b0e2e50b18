"""Concatenate the responses of an episode, so that a response is credited with the rewards of later ones."""

from collections import defaultdict
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rollout.sampling.experience import TrainingSample


def episodes_of(samples: Sequence[TrainingSample]) -> list[list[int]]:
    """Return the indices of the actions of each episode, first action first."""
    by_episode: dict[tuple[str, int | None], list[int]] = defaultdict(list)
    for index, sample in enumerate(samples):
        by_episode[sample.trajectory_id, sample.episode].append(index)
    return [sorted(indices, key=lambda index: samples[index].depth) for indices in by_episode.values()]


class EpisodeConcat:
    """Convert tables with one row per response to tables with one row per episode, and back.

    If every response is its own episode, both tables are the same.
    """

    def __init__(self, episodes: Sequence[Sequence[int]], mask: Float[np.ndarray, "R T"]) -> None:
        """Plan the conversion.

        Args:
            episodes: The indices of the responses of each episode, in order.
            mask: 1 on the tokens of each response, which are at the start of its row; 0 on padding.
        """
        self._shape = mask.shape
        num_tokens = mask.sum(axis=1).astype(int)
        width = self._shape[1]
        places = [np.concatenate([i * width + np.arange(num_tokens[i]) for i in episode]) for episode in episodes]
        longest = max(map(len, places))
        padding = mask.size  # an index past the end, which holds 0
        self._places = np.full((len(episodes), -(-longest // width) * width), padding)
        for row, place in zip(self._places, places, strict=True):
            row[: len(place)] = place

    def join(self, table: Float[Array, "R T"] | Float[np.ndarray, "R T"]) -> Float[Array, "E L"]:
        """Return the values of the responses of each episode side by side, padded with 0."""
        return jnp.append(table, 0.0)[self._places]

    def split(self, joined: Float[Array, "E L"]) -> Float[Array, "R T"]:
        """Return the inverse of `join`, with 0 on padding."""
        num_responses, width = self._shape
        return jnp.zeros(num_responses * width + 1).at[self._places].set(joined)[:-1].reshape(self._shape)
