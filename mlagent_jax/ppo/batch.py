"""Experiences as rows of tokens: responses to the states of one trajectory share their history."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from mlagent_jax.configuration.schema import PPO
from mlagent_jax.model.packed_batch import BatchShape, PackedBatch, RowBuilder, stack_rows
from rollout.sampling.experience import Experience


class PPOBatch(NamedTuple):
    """Micro-batches of rows with what the losses need at each prediction; each array is `[B, M]`.

    Attributes:
        rows: responses, predicted token by token; weight 0 where there is no token.
        old_logprobs: of the policy before the update, by the trainer.
        reference_logprobs: of the fine-tuned policy.
        importance: truncated weights of the trainer's policy against what sampled the tokens.
        old_values: of the critic before the update.
        advantages: whitened over the batch.
        returns: what the critic is to predict.
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
    """Where the tokens of one response are predicted: the row, and the places among its predictions."""

    row: int
    predictions: slice


@dataclass(frozen=True)
class Packed:
    """The rows of an update, and the place in them of each experience, in the order of the experiences."""

    rows: tuple[RowBuilder, ...]
    places: tuple[Place, ...]


def batch_shape_for(config: PPO) -> BatchShape:
    """Return the shape of every micro-batch's rows."""
    return BatchShape(config.row_length, config.predictions_per_row or config.row_length // 2)


def pack_experiences(experiences: Sequence[Experience], bucket: BatchShape) -> Packed:
    """Return rows that fit `bucket`, in which a shared history stands once.

    States of one trajectory are prefixes of one another, so a row holds the history in pieces, a piece for the turns
    between one state and the next, and every response as a child of the piece its state ends with. Trajectories go,
    longest first, into the first row with room for all of theirs; one that is longer than a row is continued in
    another, with its history again.

    Raises:
        ValueError: if one state and one response are longer than a row.
    """
    by_trajectory: dict[str, list[int]] = defaultdict(list)
    for index, experience in enumerate(experiences):
        by_trajectory[experience.trajectory_id].append(index)
    rows: list[RowBuilder] = []
    places: dict[int, Place] = {}
    for indices in sorted(by_trajectory.values(), key=lambda some: -_size([experiences[i] for i in some])[0]):
        indices.sort(key=lambda i: len(experiences[i].prompt_ids))
        while indices:
            tree = [experiences[i] for i in indices]
            number = next((n for n, row in enumerate(rows) if _fits(row, tree, bucket)), len(rows))
            if number == len(rows):
                rows.append(RowBuilder())
            placed = _fill(rows[number], tree, bucket)
            if not placed:
                state, response = len(tree[0].prompt_ids), len(tree[0].response_ids)
                raise ValueError(
                    f"a state of {state} tokens and its response of {response} do not fit a row of {bucket.length} "
                    f"with {bucket.num_predictions} predictions; raise ppo.row_length or ppo.predictions_per_row"
                )
            for index, predictions in zip(indices, placed, strict=False):
                places[index] = Place(number, predictions)
            indices = indices[len(placed) :]
    return Packed(tuple(rows), tuple(places[index] for index in range(len(experiences))))


def _size(tree: Sequence[Experience]) -> tuple[int, int]:
    """Return tokens and predictions of the experiences of one trajectory in one row."""
    num_predicted = sum(len(experience.response_ids) for experience in tree)
    return max(len(experience.prompt_ids) for experience in tree) + num_predicted, num_predicted


def _fits(row: RowBuilder, tree: Sequence[Experience], bucket: BatchShape) -> bool:
    num_tokens, num_predicted = _size(tree)
    enough = len(row.targets) + num_predicted <= bucket.num_predictions
    return enough and len(row.tokens) + num_tokens <= bucket.length


def _fill(row: RowBuilder, tree: Sequence[Experience], bucket: BatchShape) -> list[slice]:
    """Add as many experiences of one trajectory, shortest state first, as fit; returns where they are predicted."""
    placed: list[slice] = []
    history: tuple[int, ...] = ()
    parent: int | None = None
    for experience in tree:
        prompt, response = experience.prompt_ids, experience.response_ids
        assert prompt[: len(history)] == history, "the states of a trajectory are prefixes of one another"
        piece = prompt[len(history) :]
        if len(row.tokens) + len(piece) + len(response) > bucket.length:
            break
        if len(row.targets) + len(response) > bucket.num_predictions:
            break
        if piece:
            parent, history = row.add(piece, parent), prompt
        assert parent is not None
        placed.append(row.predict_segment(row.add(response, parent), parent))
    return placed


def stack_packed(packed: Packed, bucket: BatchShape, rows_per_micro_batch: int) -> list[PackedBatch]:
    """Return the rows as micro-batches of one shape; the last is filled up with empty rows."""
    rows = list(packed.rows)
    rows += [RowBuilder() for _ in range(-len(rows) % rows_per_micro_batch)]
    return [
        stack_rows(rows[i : i + rows_per_micro_batch], bucket.length, bucket.num_predictions, shared=True)
        for i in range(0, len(rows), rows_per_micro_batch)
    ]


def by_response(packed: Packed, values: Sequence[np.ndarray], max_tokens: int) -> Float[np.ndarray, "R T"]:
    """Return values at predictions (`[B, M]` by micro-batch) as one row a response, padded with 0."""
    table = np.concatenate([np.asarray(value) for value in values])
    result = np.zeros((len(packed.places), max_tokens), np.float32)
    for index, place in enumerate(packed.places):
        found = table[place.row, place.predictions]
        result[index, : len(found)] = found
    return result


def padded(responses: Iterable[Sequence[float]], max_tokens: int) -> Float[np.ndarray, "R T"]:
    """Return what is known of each token of each response as one row a response, padded with 0."""
    rows = [np.pad(np.asarray(values, np.float32), (0, max_tokens - len(values))) for values in responses]
    return np.stack(rows)


def by_prediction(packed: Packed, values: Float[np.ndarray, "R T"], like: Sequence[PackedBatch]) -> list[np.ndarray]:
    """Return values by response as arrays `[B, M]` for each micro-batch; the inverse of `by_response`."""
    table = np.zeros((sum(len(rows.tokens) for rows in like), like[0].targets.shape[1]), np.float32)
    for index, place in enumerate(packed.places):
        table[place.row, place.predictions] = values[index, : place.predictions.stop - place.predictions.start]
    return np.split(table, len(like))
