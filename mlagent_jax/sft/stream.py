"""Batches made ahead of the step, by an iterator whose place goes into checkpoints."""

import grain

from mlagent_jax.model.packed_batch import PackedBatch
from mlagent_jax.sft.data import Batches

PREFETCHED = 2  # batches


def stream(batches: Batches) -> grain.DatasetIterator[PackedBatch]:
    """Return an iterator over the batches that makes the next ones on a thread of its own; `close` it.

    `get_state()` is JSON: which batch comes next, whatever is made already and whichever rows this process feeds.
    After `set_state` of it, in another process too, the same batches follow.
    """
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=PREFETCHED)
    return iter(grain.MapDataset.source(batches).to_iter_dataset(options))
