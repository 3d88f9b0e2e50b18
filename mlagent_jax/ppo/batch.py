"""Pack training samples into rows of tokens, in which responses to the states of one trajectory share their history."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from mlagent_jax.configuration.schema import PPO
from mlagent_jax.model.packed_batch import BatchShape, PackedBatch, RowBuilder, stack_rows
from rollout.sampling.experience import TrainingSample


class PPOBatch(NamedTuple):
    """A micro-batch of rows with the inputs of the losses at each prediction; each array is `[B, M]`.

    Attributes:
        rows: The responses, predicted token by token; weight 0 on padding.
        old_logprobs: Log-probabilities by the policy before the update, as `Network.score` computes them, in nats.
        reference_logprobs: Log-probabilities by the fine-tuned policy, in nats.
        importance: Truncated importance weights of the trainer's policy against the sampler's.
        old_values: The critic's values before the update.
        advantages: The advantages, whitened over the batch.
        returns: The critic's targets.
    """

    rows: PackedBatch
    old_logprobs: Float[Array, "B M"] | Float[np.ndarray, "B M"]
    reference_logprobs: Float[Array, "B M"] | Float[np.ndarray, "B M"]
    importance: Float[Array, "B M"] | Float[np.ndarray, "B M"]
    old_values: Float[Array, "B M"] | Float[np.ndarray, "B M"]
    advantages: Float[Array, "B M"] | Float[np.ndarray, "B M"]
    returns: Float[Array, "B M"] | Float[np.ndarray, "B M"]


@dataclass(frozen=True)
class Place:
    """The predictions of one response's tokens.

    Attributes:
        row: The index of the row.
        predictions: The predictions in this row.
    """

    row: int
    predictions: slice


@dataclass(frozen=True)
class Packed:
    """The rows of an update.

    Attributes:
        rows: The rows.
        places: The place of each sample's response in the rows, in the order of the samples.
    """

    rows: tuple[RowBuilder, ...]
    places: tuple[Place, ...]


def batch_shape_for(config: PPO) -> BatchShape:
    """Return the shape of the rows of every micro-batch."""
    return BatchShape(config.row_length, config.num_predictions)


def pack_samples(samples: Sequence[TrainingSample], shape: BatchShape) -> Packed:
    """Return rows of the given shape, in which a shared history is stored once.

    The states of one trajectory are prefixes of one another. A row holds the history in pieces, one for the turns
    between one state and the next, and every response as a child of the piece that its state ends with. Trajectories
    are placed longest first, each into the first row with room for all of it. A trajectory that is longer than a row is
    continued in another row, with its history repeated.

    Raises:
        ValueError: If one state and its response are longer than a row.
    """
    by_trajectory: dict[tuple[str, int | None], list[int]] = defaultdict(list)
    for index, sample in enumerate(samples):
        by_trajectory[sample.trajectory_id, sample.episode].append(index)
    rows: list[RowBuilder] = []
    places: dict[int, Place] = {}
    for indices in sorted(by_trajectory.values(), key=lambda some: -_size([samples[i] for i in some])[0]):
        indices.sort(key=lambda i: len(samples[i].prompt_ids))
        while indices:
            tree = [samples[i] for i in indices]
            number = next((n for n, row in enumerate(rows) if _fits(row, tree, shape)), len(rows))
            if number == len(rows):
                rows.append(RowBuilder())
            placed = _fill(rows[number], tree, shape)
            if not placed:
                state, response = len(tree[0].prompt_ids), len(tree[0].response_ids)
                raise ValueError(
                    f"a state of {state} tokens and its response of {response} do not fit a row of {shape.length} "
                    f"with {shape.num_predictions} predictions; raise ppo.row_length or ppo.predictions_per_row"
                )
            for index, predictions in zip(indices, placed, strict=False):
                places[index] = Place(number, predictions)
            indices = indices[len(placed) :]
    return Packed(tuple(rows), tuple(places[index] for index in range(len(samples))))


def _size(tree: Sequence[TrainingSample]) -> tuple[int, int]:
    """Return the numbers of tokens and predictions that the samples of one trajectory take in one row."""
    num_predicted = sum(len(sample.response_ids) for sample in tree)
    return max(len(sample.prompt_ids) for sample in tree) + num_predicted, num_predicted


def _fits(row: RowBuilder, tree: Sequence[TrainingSample], shape: BatchShape) -> bool:
    num_tokens, num_predicted = _size(tree)
    enough = len(row.targets) + num_predicted <= shape.num_predictions
    return enough and len(row.tokens) + num_tokens <= shape.length


def _fill(row: RowBuilder, tree: Sequence[TrainingSample], shape: BatchShape) -> list[slice]:
    """Add as many samples of one trajectory as fit, shortest state first, and return their predictions."""
    placed: list[slice] = []
    history: tuple[int, ...] = ()
    parent: int | None = None
    for sample in tree:
        prompt, response = sample.prompt_ids, sample.response_ids
        assert prompt[: len(history)] == history, "the states of a trajectory are prefixes of one another"
        piece = prompt[len(history) :]
        if len(row.tokens) + len(piece) + len(response) > shape.length:
            break
        if len(row.targets) + len(response) > shape.num_predictions:
            break
        if piece:
            parent, history = row.add(piece, parent), prompt
        assert parent is not None
        placed.append(row.predict_segment(row.add(response, parent), parent))
    return placed


def stack_packed(packed: Packed, shape: BatchShape, rows_per_micro_batch: int) -> list[PackedBatch]:
    """Return the rows as micro-batches of one shape, the last of them padded with empty rows."""
    rows = list(packed.rows)
    rows += [RowBuilder() for _ in range(-len(rows) % rows_per_micro_batch)]
    return [
        stack_rows(rows[i : i + rows_per_micro_batch], shape.length, shape.num_predictions, shared=True)
        for i in range(0, len(rows), rows_per_micro_batch)
    ]


def by_response(packed: Packed, values: Sequence[np.ndarray], max_tokens: int) -> Float[np.ndarray, "R T"]:
    """Return values at predictions, `[B, M]` per micro-batch, as a table of one row per response, padded with 0."""
    table = np.concatenate([np.asarray(value) for value in values])
    result = np.zeros((len(packed.places), max_tokens), np.float32)
    for index, place in enumerate(packed.places):
        response = table[place.row, place.predictions]
        result[index, : len(response)] = response
    return result


def padded(responses: Iterable[Sequence[float]], max_tokens: int) -> Float[np.ndarray, "R T"]:
    """Return values of the tokens of each response as a table of one row per response, padded with 0."""
    rows = [np.pad(np.asarray(values, np.float32), (0, max_tokens - len(values))) for values in responses]
    return np.stack(rows)


def by_prediction(packed: Packed, values: Float[np.ndarray, "R T"], like: Sequence[PackedBatch]) -> list[np.ndarray]:
    """Return a table of one row per response as arrays `[B, M]` per micro-batch; the inverse of `by_response`."""
    table = np.zeros((sum(len(rows.tokens) for rows in like), like[0].targets.shape[1]), np.float32)
    for index, place in enumerate(packed.places):
        table[place.row, place.predictions] = values[index, : place.predictions.stop - place.predictions.start]
    return np.split(table, len(like))
