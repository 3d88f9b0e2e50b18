"""Which tokens of a row see which, as one number a token.

A row holds segments. A segment continues at most one earlier one, its parent, and sees it and all that its parent sees:
packed sequences are segments without a parent, responses that share a prompt are children of one segment. Segments
stand in depth-first order, so the tokens that see a given one are exactly those from itself to the end of its segment's
last descendant. That end is all there is to know, `ends`: token t sees token s where s <= t < ends[s]. Padding is seen
by itself only: ends[s] = s + 1.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int


class PackedLayout(NamedTuple):
    """Sequences side by side; none of their segments has more than one child.

    All tokens of a sequence then have one end that no other sequence has, and kernels that know segment ids take `ends`
    for them.

    Attributes:
        ends: `[B, T]` index after the last token that sees this one.
    """

    ends: Int[Array, "B T"] | Int[np.ndarray, "B T"]


class SharedLayout(NamedTuple):
    """Trees of segments: sequences that share a beginning.

    Attributes:
        ends: `[B, T]` index after the last token that sees this one.
    """

    ends: Int[Array, "B T"] | Int[np.ndarray, "B T"]


Layout = PackedLayout | SharedLayout


def padded_layout(lengths: Int[Array, " B"], length: int) -> PackedLayout:
    """Return the layout of rows that each hold one sequence, padded on the right to `length`."""
    index = jnp.arange(length)[None]
    return PackedLayout(jnp.where(index < lengths[:, None], lengths[:, None], index + 1).astype(jnp.int32))


def visible(ends: Int[Array, "B S"], queries: Int[Array, " T"], keys: Int[Array, " S"]) -> Bool[Array, "B T S"]:
    """Return True at (t, s) where the token of index queries[t] sees that of index keys[s], whose ends are given."""
    return sees(queries[:, None], keys, ends[:, None])


def sees(query: Int[Array, "..."], key: Int[Array, "..."], end: Int[Array, "..."]) -> Bool[Array, "..."]:
    """Return whether the token of index `query` sees that of index `key`, whose end is given; all broadcast."""
    return (key <= query) & (query < end)
