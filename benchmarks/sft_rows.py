"""Make rows of random conversations, packed like those of the fine-tuning stage."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from benchmarks.sft_shapes import Load, Shape
from mlagent_jax.model.packed_batch import PackedBatch, RowBuilder, stack_rows

PROMPT = 0.27  # share of a conversation before the agent's first turn
RESPONSE, OBSERVATION = 89, 59  # mean tokens of an agent's turn and of its feedback in the quickstart


def make_batches(shape: Shape, count: int) -> list[PackedBatch]:
    """Return `count` batches of one seed, all of one shape."""
    rng = np.random.default_rng(0)
    rows = [_row(shape, rng) for _ in range(count * shape.batch_size)]
    num_predictions = -(-max(len(row.targets) for row in rows) // 64) * 64
    return [
        stack_rows(rows[i : i + shape.batch_size], shape.length, num_predictions)
        for i in range(0, len(rows), shape.batch_size)
    ]


def load_of(batches: Sequence[PackedBatch]) -> Load:
    """Return the load of one pass over the batches; sequences in a row do not see each other."""
    real = [segments_of(rows) > 0 for rows in batches]
    return Load(
        tokens=int(sum(mask.sum() for mask in real)),
        targets=int(sum((rows.weights > 0).sum() for rows in batches)),
        pairs=int(sum((rows.positions[mask] + 1).sum() for rows, mask in zip(batches, real, strict=True))),
    )


def segments_of(rows: PackedBatch) -> Int[np.ndarray, "B T"]:
    """Return the sequence of each token, from 1; 0 is padding. Every sequence has at least two tokens."""
    ends, positions = np.asarray(rows.layout.ends), np.asarray(rows.positions)
    real = (ends > np.arange(1, ends.shape[1] + 1)) | (positions > 0)
    return np.cumsum(real & (positions == 0), axis=1) * real


def _row(shape: Shape, rng: np.random.Generator) -> RowBuilder:
    row = RowBuilder()
    total = int(shape.length * rng.uniform(*shape.fill))
    parts = rng.dirichlet(np.full(shape.num_segments, 8.0))
    for length in (total * parts).astype(int):
        offset = len(row.tokens)
        tokens = rng.integers(0, shape.network.vocab_size, length).tolist()
        row.add(tokens)
        begin = int(PROMPT * length)
        for i in range(1, length):
            if not shape.turns or (i >= begin and (i - begin) % (RESPONSE + OBSERVATION) < RESPONSE):
                row.predict(offset + i - 1, tokens[i])
    return row
