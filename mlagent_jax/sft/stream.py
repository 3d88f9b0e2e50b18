"""Batches prefetched by an iterator whose position goes into checkpoints."""

import grain

from mlagent_jax.model.packed_batch import PackedBatch
from mlagent_jax.sft.data import Batches

PREFETCHED = 2  # batches


def stream(batches: Batches) -> grain.DatasetIterator[PackedBatch]:
    """Return an iterator that makes the next batches in a background thread; the caller closes it.

    Its `get_state()` is a JSON value, the index of the next batch, which depends neither on prefetching nor on the rows
    that this process feeds. After `set_state`, also in another process, the same batches follow.
    """
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=PREFETCHED)
    return iter(grain.MapDataset.source(batches).to_iter_dataset(options))
