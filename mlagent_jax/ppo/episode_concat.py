"""The responses of an episode, one after another: what each earns is credited to those before it too."""

from collections import defaultdict
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rollout.sampling.experience import Experience


def episodes_of(experiences: Sequence[Experience]) -> list[list[int]]:
    """Return the indices of the actions of each trajectory, first action first."""
    found: dict[str, list[int]] = defaultdict(list)
    for index, experience in enumerate(experiences):
        found[experience.trajectory_id].append(index)
    return [sorted(indices, key=lambda index: experiences[index].depth) for indices in found.values()]


class EpisodeConcat:
    """Tables of one row a response, as tables of one row an episode, and back.

    Where every response is an episode of its own both are the same.
    """

    def __init__(self, chains: Sequence[Sequence[int]], mask: Float[np.ndarray, "R T"]) -> None:
        """Take the responses of each episode, and 1 on the tokens of each response, which stand at its start."""
        self._shape = mask.shape
        num_tokens = mask.sum(axis=1).astype(int)
        width = self._shape[1]
        places = [np.concatenate([i * width + np.arange(num_tokens[i]) for i in chain]) for chain in chains]
        longest = max(map(len, places))
        padding = mask.size  # a place past the end, which holds 0
        self._places = np.full((len(chains), -(-longest // width) * width), padding)
        for row, place in zip(self._places, places, strict=True):
            row[: len(place)] = place

    def join(self, table: Float[Array, "R T"] | Float[np.ndarray, "R T"]) -> Float[Array, "E L"]:
        """Return the values of the responses of each episode side by side, padded with 0."""
        return jnp.append(table, 0.0)[self._places]

    def split(self, joined: Float[Array, "E L"]) -> Float[Array, "R T"]:
        """Return the inverse of `join`, 0 where no token is."""
        num_responses, width = self._shape
        return jnp.zeros(num_responses * width + 1).at[self._places].set(joined)[:-1].reshape(self._shape)
