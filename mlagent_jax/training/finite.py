"""Stop a training at the first value that is not finite, before such a value is stored or served.

NaN is not above any limit, not below any best loss, and not an error anywhere: without these checks it spreads.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree

HOST = "pinned_host"  # host memory that a device reads and writes directly


class NotFinite(FloatingPointError):
    """A value of a training is NaN or infinite; the text says which."""


def require_finite(trees: Mapping[str, PyTree]) -> None:
    """Raise NotFinite if an array is not finite, with its name and its path in the tree.

    Arrays in host memory are not read. These are moments of the optimizer, which are finite if the parameters and the
    norms of the gradients are.

    Args:
        trees: Trees of arrays by name. If several processes hold the arrays, all must call this.
    """
    on_devices = jax.tree.map(lambda leaf: None if _is_on_host(leaf) else leaf, dict(trees))
    for path, is_finite in jax.tree_util.tree_flatten_with_path(_are_finite(on_devices))[0]:
        if not is_finite:
            raise NotFinite(f"{jax.tree_util.keystr(path, simple=True, separator='/')} became NaN or infinite")


def require_finite_values(tables: Mapping[str, np.ndarray]) -> None:
    """Raise NotFinite if a value of a table is not finite, with the name of the table."""
    for name, table in tables.items():
        if not np.isfinite(table).all():
            raise NotFinite(f"{name} became NaN or infinite")


def require_finite_figures(figures: Mapping[str, float]) -> None:
    """Raise NotFinite if a figure is not finite, with its name and its value."""
    for name, value in figures.items():
        if not math.isfinite(value):
            raise NotFinite(f"{name} became {value}")


def _is_on_host(leaf: Array) -> bool:
    return leaf.sharding.memory_kind == HOST


@jax.jit
def _are_finite(tree: PyTree) -> PyTree[Bool[Array, ""]]:
    return jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), tree)
