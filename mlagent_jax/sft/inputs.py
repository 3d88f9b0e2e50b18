"""The inputs of fine-tuning: the wordings of the trajectories, the tokenizer, and the rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlagent_jax.configuration.schema import SFT
from mlagent_jax.model.packed_batch import BatchShape
from mlagent_jax.sft.data import Dataset, batch_shape_of, pack
from rollout.dataset import augmentation
from rollout.dataset.augmentation import RewordResponse
from rollout.tokenizer.beside_weights import copy_beside_weights
from rollout.tokenizer.chat import ChatTokenizer, train_tokenizer
from rollout.types import Trajectory
from tasks.naming import vocabulary_text
from tasks.prompt import messages
from tasks.state import State

NAME_COUNT = 40  # number of times that a new tokenizer sees every file name, so that each becomes few tokens


@dataclass(frozen=True)
class Data:
    """The rows of fine-tuning; no trajectory is in both datasets.

    Attributes:
        train: The rows to train on.
        validation: The rows of the validation loss.
        batch_shape: Tokens and predictions of a row, equal for both.
    """

    train: Dataset
    validation: Dataset
    batch_shape: BatchShape


def make_tokenizer(
    folder: Path, system: str, wordings: Sequence[Sequence[State]], vocab_size: int | None, checkpoint: Path | None
) -> ChatTokenizer:
    """Return the policy's tokenizer and write it to `folder`, with what else lies beside a checkpoint's weights.

    Args:
        folder: The folder to write.
        system: The system message of every prompt.
        wordings: The wordings of each trajectory, which a new tokenizer is trained on.
        vocab_size: Maximum number of tokens of a new tokenizer, None if the checkpoint's is copied.
        checkpoint: The Hugging Face directory whose tokenizer is copied, None to train a new one.

    Raises:
        ValueError: If the checkpoint has no tokenizer, or one of its files is damaged.
    """
    if checkpoint is not None:
        copy_beside_weights(checkpoint, folder)
    else:
        assert vocab_size is not None, "checked with the configuration"
        texts = [message["content"] for states in wordings for state in states for message in messages(state, system)]
        texts += [vocabulary_text()] * NAME_COUNT
        train_tokenizer(texts, folder, vocab_size)
    return ChatTokenizer(folder, system)


def wordings_of(
    trajectories: Sequence[Trajectory], count: int, seed: int, reword_response: RewordResponse | None = None
) -> list[list[State]]:
    """Return every trajectory in `count` wordings, the recorded one first."""
    return [augmentation.wordings(trajectory, count, seed, reword_response) for trajectory in trajectories]


def load_data(
    sft: SFT,
    seed: int,
    tokenizer: ChatTokenizer,
    wordings: Sequence[Sequence[State]],
    is_validation: Sequence[bool],
) -> Data:
    """Return the rows of training, epoch after epoch, and those of the validation loss.

    Args:
        sft: The section `sft`.
        seed: Seed of the order of the rows.
        tokenizer: The policy's tokenizer.
        wordings: The wordings of each trajectory; two of each are used for validation.
        is_validation: Whether each trajectory is used for validation instead of training.

    Raises:
        ValueError: If there are no rows of either.
    """
    split = list(zip(wordings, is_validation, strict=True))
    validation = [state for states, held in split if held for state in states[:2]]
    train = [state for states, held in split if not held for state in states]
    train_set = pack(train, tokenizer, sft.max_length, seed, sft.num_epochs)
    validation_set = pack(validation, tokenizer, sft.max_length, seed)
    for name, dataset in (("training", train_set), ("validation", validation_set)):
        if not dataset.rows:
            raise ValueError(
                f"no rows for {name}: {len(dataset.sizes)} sequences, none with a turn within "
                f"sft.max_length={sft.max_length}; raise it, or collect more trajectories"
            )
    return Data(train_set, validation_set, batch_shape_of([train_set, validation_set], sft.max_length))
