"""The tokens that each token of a row sees, stated as one number per token.

A row holds segments. A segment continues at most one earlier segment, its parent, and sees the parent and everything
that the parent sees: packed sequences are segments without a parent, and responses that share a prompt are children of
one segment. Segments are in depth-first order, so the tokens that see a given token are exactly those from itself to
the end of the last descendant of its segment. That end, `ends`, is the whole layout: token t sees token s if
s <= t < ends[s]. A padding token is seen only by itself: ends[s] = s + 1.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int


class PackedLayout(NamedTuple):
    """Several sequences in a row; no segment has more than one child.

    All tokens of a sequence then have the same end, and no other sequence has it, so `ends` can serve as the segment
    ids of kernels that take these.

    Attributes:
        ends: `[B, T]` index after the last token that sees this one.
    """

    ends: Int[Array, "B T"] | Int[np.ndarray, "B T"]


class SharedLayout(NamedTuple):
    """Trees of segments: sequences that share a prefix.

    Attributes:
        ends: `[B, T]` index after the last token that sees this one.
    """

    ends: Int[Array, "B T"] | Int[np.ndarray, "B T"]


Layout = PackedLayout | SharedLayout


def padded_layout(lengths: Int[Array, " B"], length: int) -> PackedLayout:
    """Return the layout of rows with one sequence each, padded on the right to `length`."""
    index = jnp.arange(length)[None]
    return PackedLayout(jnp.where(index < lengths[:, None], lengths[:, None], index + 1).astype(jnp.int32))


def visible(ends: Int[Array, "B S"], queries: Int[Array, " T"], keys: Int[Array, " S"]) -> Bool[Array, "B T S"]:
    """Return a mask that is True at (t, s) if token queries[t] sees token keys[s], whose end is ends[s]."""
    return sees(queries[:, None], keys, ends[:, None])


def sees(query: Int[Array, "..."], key: Int[Array, "..."], end: Int[Array, "..."]) -> Bool[Array, "..."]:
    """Return whether the token of index `query` sees that of index `key`, whose end is `end`; arguments broadcast."""
    return (key <= query) & (query < end)
